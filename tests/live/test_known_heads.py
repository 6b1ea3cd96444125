"""A remembered head proves nothing about access: each request's token, key and rate are checked."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.sse.auth.fakes import claims, ec_key, es256, hs256, jwk, jwks
from tests.support.server import Server
from tests.support.wait import eventually

SECRET = "a secret of thirty-two bytes or more"
OFTEN = 5


@pytest.fixture
def publisher() -> Iterator[Callable[[Server, str], Callable[[], int]]]:
    """``publisher(server, token)()`` publishes, with the same head on the same connection each time, and returns the
    status."""
    connections: list[http.client.HTTPConnection] = []

    def make(server: Server, token: str) -> Callable[[], int]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connections.append(connection)
        connection.connect()
        used = connection.sock

        head = f"POST /events/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 5\r\n\r\n"

        def publish() -> int:
            used.sendall(head.encode() + b"hello")  # at once: a request in pieces is not repeated (sse.worker.repeats)
            answer = http.client.HTTPResponse(used)
            answer.begin()
            answer.read()
            assert answer.getheader("Connection") == "keep-alive", "a refusal does not end the connection"
            return answer.status

        return publish

    yield make
    for connection in connections:
        connection.close()


def test_an_expired_token_is_refused_with_a_remembered_head(
    start_server: StartServer, publisher: Callable[[Server, str], Callable[[], int]]
) -> None:
    server = start_server(SSE_JWT_KEY=SECRET)
    publish = publisher(server, hs256(claims(ttl=3, publish=["a"]), SECRET))
    assert [publish() for _ in range(OFTEN)] == [201] * OFTEN
    eventually(lambda: publish() == 401, 5)
    assert publish() == 401


def test_a_key_removed_from_its_set_is_refused_with_a_remembered_head(
    start_server: StartServer, tmp_path: Path, publisher: Callable[[Server, str], Callable[[], int]]
) -> None:
    key, other = ec_key(), ec_key()
    path = tmp_path / "jwks.json"
    path.write_text(jwks(jwk(key, kid="one", alg="ES256")))
    server = start_server(SSE_JWKS_FILE=str(path), SSE_JWT_ALGORITHMS="ES256")
    publish = publisher(server, es256(claims(publish=["a"]), key, kid="one"))
    assert [publish() for _ in range(OFTEN)] == [201] * OFTEN
    path.write_text(jwks(jwk(other, kid="two", alg="ES256")))
    eventually(lambda: publish() == 401, 5)
    # And what was refused with a head is let in with the same head, when it may again.
    path.write_text(jwks(jwk(key, kid="one", alg="ES256")))
    eventually(lambda: publish() == 201, 5)


def test_each_publish_with_a_remembered_head_counts_towards_the_rate(
    start_server: StartServer, publisher: Callable[[Server, str], Callable[[], int]]
) -> None:
    server = start_server(SSE_JWT_KEY=SECRET, SSE_PUBLISH_RATE=OFTEN)
    publish = publisher(server, hs256(claims(publish=["a"]), SECRET))
    statuses = [publish() for _ in range(3 * OFTEN)]
    assert statuses[:OFTEN] == [201] * OFTEN and 429 in statuses
