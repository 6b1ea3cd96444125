"""Taking access back on a real service: every worker ends the streams and refuses the tokens, and so does a new one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.conftest import StartServer
from tests.live.observe import closed, streams
from tests.sse.auth.fakes import SECRET, claims, hs256
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

KEY = "publish-key-0123456789"
MANAGER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(WEB_CONCURRENCY=2, SSE_JWT_KEY=SECRET, SSE_PUBLISH_KEY=KEY) as running:
        yield running


def token(sub: str, issued: float) -> str:
    return hs256(claims(subscribe=["*"], publish=["*"], sub=sub, iat=int(issued)))


def revoke(server: Server, query: str) -> None:
    answer = server.request("DELETE", f"/streams?{query}", headers=MANAGER)
    assert answer.status == 202, answer.body


def status(server: Server, sub: str, issued: float) -> int:
    """Return the answer to a request that reads nothing but needs a token."""
    headers = {"Authorization": f"Bearer {token(sub, issued)}"}
    return server.request("HEAD", "/events/a", headers=headers).status


def test_a_subjects_streams_end_on_every_worker_and_its_tokens_are_refused(server: Server) -> None:
    earlier = time.time() - 60
    with contextlib.ExitStack() as clients:

        def opened(sub: str, target: str = "/events/a") -> SSEClient:
            client = clients.enter_context(SSEClient(server.port, f"{target}{'&' if '?' in target else '?'}access_token={token(sub, earlier)}"))
            client.next_event()
            return client

        mine = [opened("alice", target) for target in ("/events/a", "/events/b*", "/events?channel=c&channel=d*") * 6]
        others = [opened("bob") for _ in range(4)]
        eventually(lambda: streams(server) == 22, 10)
        began = time.monotonic()
        revoke(server, "subject=alice")
        for client in mine:
            client.read_to_end(5)
            assert client.ending.clean
        assert time.monotonic() - began < 5
        eventually(lambda: closed(server).get("revoked") == len(mine), 5)
        # Each request may come to either worker.
        assert {status(server, "alice", earlier) for _ in range(20)} == {401}
        assert {status(server, "alice", time.time() + 2) for _ in range(20)} == {200}
        server.publish("a", "still here", Authorization=f"Bearer {KEY}")
        assert {client.next_message(5).data for client in others} == {"still here"}


@pytest.mark.parametrize(
    ("query", "ends"),
    [
        ("channel=x:1", {"x:1", "x:*", "x:1,y"}),
        ("channel=x:1&subject=nobody", set()),
    ],
)
def test_a_channels_streams_end(server: Server, query: str, ends: set[str]) -> None:
    good = token("carol", time.time() - 60)
    targets = {"x:1": "/events/x:1", "x:*": "/events/x:*", "x:1,y": "/events?channel=x:1&channel=y", "x:2": "/events/x:2"}
    with contextlib.ExitStack() as clients:
        opened = {}
        for name, target in targets.items():
            way = f"{target}{'&' if '?' in target else '?'}access_token={good}"
            opened[name] = clients.enter_context(SSEClient(server.port, way))
            opened[name].next_event()
        before = closed(server).get("revoked", 0)
        revoke(server, query)
        for name in ends:
            opened[name].read_to_end(5)
            assert opened[name].ending.clean
        eventually(lambda: closed(server).get("revoked", 0) == before + len(ends), 5)
        server.publish("x:2", "there", Authorization=f"Bearer {KEY}")
        assert opened["x:2"].next_message(5).data == "there"
        assert status(server, "carol", time.time() - 60) == 200


def test_one_requests_stream_ends(server: Server) -> None:
    good = token("dave", time.time() - 60)
    target = f"/events/one?access_token={good}"
    with (
        SSEClient(server.port, target, headers={"X-Request-ID": "this-one"}) as this,
        SSEClient(server.port, target, headers={"X-Request-ID": "that-one"}) as that,
    ):
        this.next_event()
        that.next_event()
        revoke(server, "request=this-one")
        this.read_to_end(5)
        assert this.ending.clean
        server.publish("one", "there", Authorization=f"Bearer {KEY}")
        assert that.next_message(5).data == "there"


def test_a_new_pod_refuses_the_old_tokens(start_server: StartServer) -> None:
    server = start_server(SSE_JWT_KEY=SECRET, SSE_PUBLISH_KEY=KEY)
    earlier = time.time() - 60
    assert status(server, "alice", earlier) == 200
    revoke(server, "subject=alice")
    server.kill()
    server.start()
    assert status(server, "alice", earlier) == 401
    assert status(server, "bob", earlier) == 200
