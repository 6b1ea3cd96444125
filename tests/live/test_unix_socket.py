"""A proxy in front of a Unix socket, as gunicorn recommends. Health has a TCP port beside it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.observe import samples
from tests.support.ports import ReservedPort
from tests.support.server import Answer, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

KEY = "0123456789abcdef0123"


class Behind(Server):
    """A server whose main listener is the Unix socket ``path``."""

    path: Path

    def ask(self, method: str, target: str, body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(5)
            connection.sock.connect(str(self.path))
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def stream(self, target: str, **headers: str) -> SSEClient:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return SSEClient(0, target, host=str(self.path), headers=named)


@pytest.fixture(scope="module", params=["its port", "any free port"])
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    path = tmp_path_factory.mktemp("unix") / "s"
    probes = ReservedPort()
    server = Behind(
        "--bind",
        f"unix:{path}",
        "--bind",
        f"127.0.0.1:{probes.number}",
        HEALTH_PORT=probes.number if request.param == "its port" else 0,
        SSE_MAX_STREAMS_PER_IP=2,
        SSE_TRUSTED_PROXIES="127.0.0.1,::1",
        SSE_PUBLISH_KEY=KEY,
        SSE_DRAIN_DELAY=0,
        SSE_DRAIN_WINDOW=1,
        LOG_FORMAT="text",
    )
    server.path, server.health_port = path, probes.number
    with server:
        yield server
    probes.release()


def test_the_health_port_serves_probes_and_metrics_and_nothing_else(behind: Behind) -> None:
    port = behind.health_port
    for path in ("/healthz", "/readyz", "/startupz", "/metrics"):
        assert behind.request("GET", path, port=port).status == 200, path
    authorized = {"Authorization": f"Bearer {KEY}"}
    assert behind.request("GET", "/events/a", port=port).status == 404
    assert behind.request("POST", "/events/a", "x", authorized, port=port).status == 404
    assert behind.request("POST", "/events/a", "x", port=port).status == 404


def test_the_unix_socket_has_no_metrics_for_any_host_header(behind: Behind) -> None:
    for host in ("localhost", f"localhost:{behind.health_port}", "localhost:8081"):
        assert behind.ask("GET", "/metrics", Host=host).status == 404
        assert behind.ask("GET", "/readyz", Host=host).status == 200
        assert behind.ask("POST", "/events/a", "x", Host=host).status == 401
        assert behind.ask("POST", "/events/a", "x", Host=host, Authorization=f"Bearer {KEY}").status == 201


def test_clients_behind_the_proxy_are_counted_and_logged_by_their_own_addresses(behind: Behind) -> None:
    clients = [f"192.0.2.{n}" for n in (1, 2, 3, 4)]
    with ExitStack() as streams:
        opened = [
            streams.enter_context(behind.stream("/events/b", X_Forwarded_For=client)) for client in (*clients, clients[0])
        ]
        assert not [stream.headers for stream in opened if "content-length" in stream.headers]
        behind.ask("POST", "/events/b", "hello", Authorization=f"Bearer {KEY}")
        assert [stream.next_message().data for stream in opened] == ["hello"] * 5
        third = streams.enter_context(behind.stream("/events/b", X_Forwarded_For=clients[0]))
        assert "content-length" in third.headers, "a third stream of one client is sent away"
        assert samples(behind)['sse_connections{state="stream"}'] >= 5
    eventually(lambda: all(f"client={client} " in behind.log_text() for client in clients))


def test_the_name_of_a_unix_sockets_peer_is_not_taken_for_an_address(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket's peer may bind its end to a file of any name, such as an address without a limit."""
    monkeypatch.chdir(behind.path.parent)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("198.51.100.7")
        sock.connect(str(behind.path))
        sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while sock.recv(65536):
            pass
    eventually(lambda: "/openapi.json" in behind.log_text())
    assert "198.51.100.7" not in behind.log_text()


def test_probes_are_answered_to_the_end_of_a_drain(behind: Behind) -> None:
    with behind.stream("/events/c", X_Forwarded_For="192.0.2.9"):
        behind.terminate()
        eventually(lambda: not _takes_connections(behind.path), 5)
        assert behind.request("GET", "/readyz", port=behind.health_port).status == 503
    assert behind.wait() == 0


def _takes_connections(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True
