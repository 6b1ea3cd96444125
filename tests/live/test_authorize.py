"""``@sse.authorize`` under gunicorn: a session decides, streams are taken over, and they end in time to be asked for
again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from tests.live.observe import closed, streams
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

KEY = "publish-key-0123456789"
EXPIRES_IN = 3.0


@pytest.fixture(scope="module", params=["our worker", "gthread"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    bare = ("--worker-class", "gthread", "--threads", "8") if request.param == "gthread" else ()
    command = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *bare, "tests.live.authorizing_app:app")
    options = {"SSE_PUBLISH_KEY": KEY, "APP_EXPIRES_IN": EXPIRES_IN, "SSE_HEARTBEAT": 0.5}
    with Server(command=command, **options) as running:
        yield running


def cookie_of(server: Server, name: str) -> dict[str, str]:
    """Sign in; return the header that a browser would send from then on."""
    answer = server.request("GET", f"/login/{name}")
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


@pytest.mark.parametrize("target", ["/events/user:ann", "/events?channel=user:ann"])
def test_the_session_decides_who_reads(server: Server, target: str) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    with SSEClient(server.port, target, headers=cookie_of(server, "ann")) as client:
        client.next_event()
        assert server.request("POST", "/events/user:ann", "for ann", key).status == 201
        assert client.next_message(5).data == "for ann"
    for headers in ({}, cookie_of(server, "bob"), {"Cookie": "session=forged"}):
        assert server.request("GET", target, headers=headers).status == 403
    both = "/events?channel=user:bob&channel=user:ann"
    assert server.request("GET", both, headers=cookie_of(server, "bob")).status == 403
    assert server.request("GET", target, headers=cookie_of(server, "trouble")).status == 500
    assert server.request("POST", "/events/user:ann", "x").status == 401  # the app leaves publishing to keys


def test_a_stream_ends_cleanly_in_time(server: Server) -> None:
    began = time.monotonic()
    headers = cookie_of(server, "ann")
    before = closed(server).get("token", 0)
    with SSEClient(server.port, "/events/user:ann", headers=headers) as client:
        first = client.next_event()
        client.read_to_end(EXPIRES_IN + 5)
        assert client.ending.clean
        assert time.monotonic() - began < EXPIRES_IN + 1
    eventually(lambda: streams(server) == 0 and closed(server).get("token") == before + 1, 5)
    # The browser comes back with its cursor, and the app is asked again.
    signed_out = {"Last-Event-ID": str(first.id)}
    assert server.request("GET", "/events/user:ann", headers=signed_out).status == 403
