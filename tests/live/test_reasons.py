"""Every reason in the metrics can be made to happen, and is then counted once, as that reason."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from health.metrics.table import REFUSALS
from sse.streams.stream import CloseReason
from sse.web.publishing import PUBLISH_REFUSALS
from sse.worker.deadlines import CLOSINGS
from tests.live.observe import samples
from tests.live.test_takeover import flood
from tests.sse.auth.fakes import SECRET, claims, hs256
from tests.support.redis_server import RedisServer
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

KEY = "0123456789abcdef0123"
HEADER = 0.5  # SSE_READ_HEADER_TIMEOUT, seconds
POOL = 20  # WORKER_CONNECTIONS

APP = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "tests.live.reasons_app:app")
GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """A server with short time-outs and an app that lets exceptions escape."""
    with Server(
        command=APP,
        SSE_READ_HEADER_TIMEOUT=HEADER,
        SSE_READ_TIMEOUT=1,
        SSE_WRITE_TIMEOUT=1,
        SSE_IDLE_TIMEOUT=2,
        SSE_KEEPALIVE_REQUESTS=3,
        WORKER_CONNECTIONS=POOL,
    ) as server:
        yield server


def counted(server: Server, metric: str) -> dict[str, int]:
    """Return the counts by reason, without zeros."""
    prefix, suffix = f'{metric}{{reason="', '"}'
    found = {name: value for name, value in samples(server).items() if name.startswith(prefix) and value}
    return {name.removeprefix(prefix).removesuffix(suffix): int(value) for name, value in found.items()}


def expect(server: Server, metric: str, reason: str, happen: Callable[[], None], times: int = 1) -> None:
    """Check that ``happen`` counts ``times`` for this reason, and for no other."""
    before = counted(server, metric)
    happen()
    after = before | {reason: before.get(reason, 0) + times}
    eventually(lambda: counted(server, metric) == after, 5, lambda: f"{counted(server, metric)}, not {after}")


@contextlib.contextmanager
def connected(server: Server, octets: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=8) as sock:
        sock.sendall(octets)
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def _header(server: Server) -> None:
    with connected(server, b"GET / HT") as sock:
        assert read_to_end(sock) == b""


def _body(server: Server) -> None:
    with connected(server, b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab") as sock:
        assert read_to_end(sock).startswith(b"HTTP/1.1 408 ")


def _unread_body(server: Server) -> None:
    """Send a part of a body that the view does not read: the answer comes at once, the rest of the body never."""
    with connected(server, b"POST /unread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab") as sock:
        assert read_to_end(sock).startswith(b"HTTP/1.1 200 ")


def _deaf(server: Server) -> None:
    sock = socket.socket()
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(GET % b"/large")
        time.sleep(1.5)  # SSE_WRITE_TIMEOUT, in which nothing is read


def _idle(server: Server) -> None:
    with connected(server, GET % b"/openapi.json") as sock:
        assert read_to_end(sock).startswith(b"HTTP/1.1 200 ")


def _bad(server: Server) -> None:
    with connected(server, b"nonsense\r\n\r\n") as sock:
        assert read_to_end(sock).startswith(b"HTTP/1.1 400 ")


def _bad_second(server: Server) -> None:
    """Send a bad request after a good one on the same connection."""
    with connected(server, GET % b"/openapi.json" + b"nonsense\r\n\r\n") as sock:
        assert b"HTTP/1.1 400 " in read_to_end(sock)


def _escape(server: Server) -> None:
    with connected(server, GET % b"/escape") as sock:
        assert read_to_end(sock).startswith(b"HTTP/1.1 500 ")


def _escape_late(server: Server) -> None:
    with connected(server, GET % b"/escape-late") as sock:
        assert b"begun" in read_to_end(sock)


def _many(server: Server) -> None:
    with connected(server, (GET % b"/openapi.json") * 5) as sock:
        assert read_to_end(sock).count(b"HTTP/1.1 200 ") == 3


def _full(server: Server) -> None:
    def fill() -> int | None:
        """Fill the pool. Idle connections also time out, so this may take several tries on a slow machine."""
        with contextlib.ExitStack() as pool:
            for _ in range(POOL):
                pool.enter_context(connected(server, GET % b"/openapi.json"))
            time.sleep(1.2)  # the pool is looked at once a second
            return counted(server, "sse_connections_closed_total").get("evicted")

    eventually(fill, 30)


CLOSING = (
    pytest.param("read-header-timeout", _header, id="read-header-timeout"),
    pytest.param("read-timeout", _body, id="read-timeout"),
    pytest.param("read-timeout", _unread_body, id="read-timeout of a body that nobody wants"),
    pytest.param("write-timeout", _deaf, id="write-timeout"),
    pytest.param("idle-timeout", _idle, id="idle-timeout"),
    pytest.param("bad-request", _bad, id="bad-request"),
    pytest.param("bad-request", _bad_second, id="bad-request, the second on its connection"),
    pytest.param("error", _escape, id="error"),
    pytest.param("error", _escape_late, id="error in the middle of the answer"),
    pytest.param("keepalive-requests", _many, id="keepalive-requests"),
)


@pytest.mark.parametrize(("reason", "happen"), CLOSING)
def test_why_a_connection_was_closed_is_counted(hasty: Server, reason: str, happen: Callable[[Server], None]) -> None:
    expect(hasty, "sse_connections_closed_total", reason, lambda: happen(hasty))


def test_a_connection_that_its_client_ends_is_not_counted(hasty: Server) -> None:
    before = counted(hasty, "sse_connections_closed_total")
    assert hasty.request("GET", "/openapi.json").status == 200
    close = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with connected(hasty, (GET % b"/openapi.json") * 2 + close) as sock:
        assert read_to_end(sock).count(b"HTTP/1.1 200 ") == 3
    with connected(hasty, b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab"):
        pass
    assert hasty.request("GET", "/events/a?channel=x", headers={"Accept": "text/html"}).status == 406
    time.sleep(1.2)  # until the numbers have been moved
    assert counted(hasty, "sse_connections_closed_total") == before


def test_idle_connections_of_a_full_pool_are_counted_as_evicted(hasty: Server) -> None:
    _full(hasty)
    assert {case.values[0] for case in CLOSING} | {"evicted"} == set(CLOSINGS), "no reason is left out"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """Publishing needs a key or a token."""
    with Server(
        command=APP,
        SSE_PUBLISH_KEY=KEY,
        SSE_JWT_KEY=SECRET,
        SSE_PUBLISH_RATE=20,
        SSE_MAX_EVENT_BYTES=100,
        SSE_MAX_BATCH_BYTES=200,
    ) as server:
        yield server


def _publish(server: Server, status: int, body: str = "x", path: str = "/events/a", **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert server.request("POST", path, body, named).status == status


def _bearer(token: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_why_a_publish_was_refused_is_counted(guarded: Server) -> None:
    def check(reason: str, happen: Callable[[], None]) -> None:
        expect(guarded, "sse_publishes_refused_total", reason, happen)
        seen.add(reason)

    seen: set[str] = set()
    small = hs256(claims(publish=["b"]))
    check("key", lambda: _publish(guarded, 401))
    check("key", lambda: _publish(guarded, 401, **_bearer("a-wrong-key-of-20-characters")))
    check("token", lambda: _publish(guarded, 403, **_bearer(small)))
    check("token", lambda: _publish(guarded, 401, **_bearer(hs256({"exp": 1}))))
    check("invalid", lambda: _publish(guarded, 400, path="/events/a?retry=soon", **_bearer()))
    check("invalid", lambda: _publish(guarded, 400, path="/events/_canary", **_bearer()))
    check("invalid", lambda: _publish(guarded, 415, path="/events", **_bearer()))
    check("size", lambda: _publish(guarded, 413, "x" * 101, **_bearer()))
    ndjson = {"Content_Type": "application/x-ndjson"}
    line = json.dumps({"channel": "a", "data": "x" * 90}) + "\n"
    check("size", lambda: _publish(guarded, 413, line * 3, path="/events", **_bearer(), **ndjson))
    _publish(guarded, 201, Idempotency_Key="k", **_bearer())
    check("conflict", lambda: _publish(guarded, 422, "other", Idempotency_Key="k", **_bearer()))
    _publish(guarded, 201, path="/events/over?close=1", **_bearer())
    check("ended", lambda: _publish(guarded, 409, path="/events/over", **_bearer()))

    def too_fast() -> None:
        eventually(lambda: guarded.request("POST", "/events/a", "x", _bearer()).status == 429, 10, interval=0)

    check("rate", too_fast)
    assert seen == {"key", "token", "invalid", "size", "conflict", "ended", "rate"}
    # Of the others, in tests of their own: log (a full disk), app (test_authorize), origin and closed below.
    assert set(PUBLISH_REFUSALS) - seen == {"log", "origin", "closed", "app", "error"}


def test_a_web_page_that_publishes_to_this_machine_is_counted(hasty: Server) -> None:
    evil = {"Origin": "http://evil.example"}
    expect(hasty, "sse_publishes_refused_total", "origin", lambda: _publish(hasty, 403, **evil))


def test_publishes_refused_by_policy_or_by_a_lost_log_are_counted() -> None:
    with Server(command=APP, HOST="0.0.0.0") as server:
        expect(server, "sse_publishes_refused_total", "closed", lambda: _publish(server, 403))
    with Server(command=APP) as server:
        for path in server.directory.glob("h.db*"):
            path.unlink()
        eventually(lambda: server.request("POST", "/events/a", "x").status == 503, 5, interval=0.3)
        before = counted(server, "sse_publishes_refused_total").get("log", 0)
        _publish(server, 503)
        eventually(lambda: counted(server, "sse_publishes_refused_total") == {"log": before + 1}, 5)


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────

CLOSED, REFUSED = "sse_streams_closed_total", "sse_streams_refused_total"

# Those that take a server and a scene of their own: the access log of which has the reason, which is counted with it.
ELSEWHERE = {
    "cut": "tests/live/test_drain.py",
    "erased": "tests/live/test_channel_life.py",
    "fell-behind": "tests/live/test_overtaken.py",
    "revoked": "tests/live/test_channel_life.py",
    "write-timeout": "tests/live/test_slow_readers.py",
}


def _token(seconds: float) -> dict[str, str]:
    return _bearer(hs256(claims(exp=time.time() + seconds, subscribe=["*"])))


def _until_closed(server: Server, target: str, headers: dict[str, str] | None = None) -> None:
    with SSEClient(server.port, target, headers=headers) as client:
        client.read_to_end(8)


def _sent_away(server: Server, target: str = "/events/a:1", **options: Any) -> None:
    with SSEClient(server.port, target, **options) as client:
        assert client.status == 200
        client.read_to_end(3)
        assert client.ending.clean


def _gone(server: Server, go: Callable[[SSEClient], None]) -> None:
    with SSEClient(server.port, "/events/a:1") as client:
        client.next_event()
        go(client)


def _ended(server: Server) -> None:
    with SSEClient(server.port, "/events/a:closed") as client:
        client.next_event()
        token = _bearer(hs256(claims(publish=["*"])))
        assert server.request("POST", "/events/a:closed?close=1", "last", token).status == 201
        client.read_to_end(8)


def test_why_a_stream_ended_or_was_sent_away_is_counted() -> None:
    seen: dict[str, set[str]] = {CLOSED: set(), REFUSED: set()}

    def check(server: Server, metric: str, reason: str, happen: Callable[[], None], times: int = 1) -> None:
        expect(server, metric, reason, happen, times)
        seen[metric].add(reason)

    settings: dict[str, Any] = {"SSE_JWT_KEY": SECRET, "SSE_PUBLIC_CHANNELS": "a:*", "SSE_MAX_STREAM_AGE": 3}
    with Server(command=APP, SSE_DRAIN_DELAY=2, SSE_DRAIN_WINDOW=3, SSE_MAX_STREAMS=3, **settings) as server:
        check(server, CLOSED, "client", lambda: _gone(server, SSEClient.close))
        check(server, CLOSED, "reset", lambda: _gone(server, SSEClient.abort))
        check(server, CLOSED, "flooded", lambda: _gone(server, flood))
        check(server, CLOSED, "done", lambda: _until_closed(server, "/numbers"))
        check(server, CLOSED, "error", lambda: _until_closed(server, "/raises"))
        check(server, CLOSED, "ended", lambda: _ended(server))
        check(server, CLOSED, "lease", lambda: _until_closed(server, "/events/a:1"))
        check(server, CLOSED, "token", lambda: _until_closed(server, "/events/b", _token(3.0)))
        check(server, REFUSED, "token", lambda: _sent_away(server, "/events/b", headers=_token(0.9)))
        with contextlib.ExitStack() as full:
            for _ in range(3):
                full.enter_context(SSEClient(server.port, "/events/a:1"))
            check(server, REFUSED, "streams", lambda: _sent_away(server))
        server.terminate()
        eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 503, 2)
        check(server, REFUSED, "drain", lambda: _sent_away(server))

    with Server(command=APP, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=5) as server, contextlib.ExitStack() as many:
        for _ in range(20):
            many.enter_context(SSEClient(server.port, "/events/a"))
        server.terminate()
        eventually(lambda: counted(server, CLOSED).get("drain", 0) > 0, 5)
        seen[CLOSED].add("drain")

    with Server("-k", "gthread", "--threads", "3", command=APP, SSE_MAX_STREAMS_PER_IP=1) as server:
        with SSEClient(server.port, "/events/a"):
            check(server, REFUSED, "threads", lambda: _sent_away(server))

    with RedisServer() as redis, Server(command=APP, SSE_LOG=redis.url, SSE_MAX_STREAMS_PER_IP=1) as server:
        first = server.publish("a", "first")
        with SSEClient(server.port, "/events/a") as client:
            check(server, REFUSED, "streams-per-ip", lambda: _sent_away(server))
            with redis.client() as behind:
                behind.flushall()
            eventually(lambda: counted(server, CLOSED).get("replaced") == 1, 10)
            seen[CLOSED].add("replaced")
            assert client.wait_closed(5).clean
        redis.kill()
        check(server, REFUSED, "log", lambda: _sent_away(server, "/events/a", last_event_id=first))

    assert seen[CLOSED] | set(ELSEWHERE) == set(CloseReason) and not seen[CLOSED] & set(ELSEWHERE)
    assert seen[REFUSED] == set(REFUSALS)


@pytest.mark.parametrize(("reason", "path"), ELSEWHERE.items())
def test_the_other_reasons_have_tests_of_their_own(reason: str, path: str) -> None:
    assert f'"{reason}"' in (ROOT / path).read_text() or f'reason": "{reason}"' in (ROOT / path).read_text()
