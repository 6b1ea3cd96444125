"""Invalid requests on the wire: each is refused with a problem that names the error, and nothing is stored."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

NDJSON = {"Content-Type": "application/x-ndjson"}
GOOD = b'{"channel":"never","data":"x"}'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(SSE_MAX_BATCH_BYTES=2_000_000) as running:
        yield running


def erasing(target: str) -> set[str]:
    """One channel can be erased; a batch has nothing to delete."""
    return {"DELETE"} if target.startswith("/events/") else set()


@dataclass(frozen=True)
class Bad:
    """A request and its expected answer. ``says``: part of the problem's detail."""

    method: str
    target: str
    status: int
    says: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, object] = field(default_factory=dict)


def post(
    target: str, status: int, says: str, body: bytes = b"x", headers: Mapping[str, str] | None = None, **more: object
) -> Bad:
    return Bad("POST", target, status, says, body, headers or {}, more)


def get(target: str, status: int, says: str, headers: Mapping[str, str] | None = None, **more: object) -> Bad:
    return Bad("GET", target, status, says, None, headers or {}, more)


def lines(*bodies: bytes, status: int = 400, says: str, **more: object) -> Bad:
    return post("/events", status, says, b"\n".join(bodies), NDJSON, **more)


LONG = "a" * 129
CASES = {
    # A channel's name, in path and query, for publishing and for streaming.
    "129 characters": post(f"/events/{LONG}", 400, "1 to 128", field="channel"),
    "129 characters to a stream": get(f"/events/{LONG}", 400, "1 to 128", field="channel"),
    "129 characters in a query": get(f"/events?channel=a&channel={LONG}", 400, "1 to 128", field="channel"),
    "NUL in a path": post("/events/a%00", 400, "channel: must be", field="channel"),
    "NUL in a stream's path": get("/events/a%00b", 400, "channel: must be", field="channel"),
    "NUL in a query": get("/events?channel=a%00", 400, "channel: must be", field="channel"),
    "LF in a path": post("/events/a%0a", 400, "channel: must be", field="channel"),
    "LF in a stream's path": get("/events/%0aa", 400, "channel: must be", field="channel"),
    "LF at a query's end": get("/events?channel=a%0a", 400, "channel: must be", field="channel"),
    "CR in a query": get("/events?channel=a%0d", 400, "channel: must be", field="channel"),
    "a space": post("/events/a%20b", 400, "channel: must be", field="channel"),
    "half a character in a path": post("/events/a%c3", 400, "channel: must be", field="channel"),
    "half a character in a stream's path": get("/events/%c3%28", 400, "channel: must be", field="channel"),
    "half a character in a stream's query": get("/events?channel=%c3", 400, "channel: must be", field="channel"),
    "a letter of another script": post("/events/%c3%a9", 400, "channel: must be", field="channel"),
    "it begins with a dot": get("/events/.hidden", 400, "channel: must be", field="channel"),
    "a reserved name": post("/events/_canary", 400, "reserved", field="channel"),
    "a reserved name to a stream": get("/events/_mine", 400, "reserved", field="channel"),
    "a reserved name beside another": get("/events?channel=a&channel=_canary", 400, "streamed alone"),
    "an empty name": get("/events?channel=", 400, "channel: must be", field="channel"),
    "no name": get("/events", 400, "at least one channel"),
    "65 channels": get("/events?" + "&".join(f"channel=c{n}" for n in range(65)), 400, "at most 64", limit=64),
    # Fields of an event.
    "LF in the type": post("/events/a?event=x%0aid:%201", 400, "CR, LF or NUL", field="event"),
    "CR in the type": post("/events/a?event=x%0d", 400, "CR, LF or NUL", field="event"),
    "NUL in the type": post("/events/a?event=%00", 400, "CR, LF or NUL", field="event"),
    "an empty type": post("/events/a?event=", 400, "event: must be", field="event"),
    "a type of 1,025 characters": post(f"/events/a?event={'x' * 1025}", 400, "1 to 1024", field="event"),
    "a reserved type": post("/events/a?event=stream-reset", 400, "reserved", field="event"),
    "half a character in the type": post("/events/a?event=%c3", 400, "not UTF-8"),
    "half a character in a filter": get("/events/a?event=%c3", 400, "not UTF-8"),
    "an empty filter": get("/events/a?event=", 400, "at least one character", field="event"),
    "retry with a unit": post("/events/a?retry=5s", 400, "digits only", field="retry"),
    "a negative retry": post("/events/a?retry=-5", 400, "digits only", field="retry"),
    "a retry beyond 31 bits": post("/events/a?retry=2147483648", 400, "2147483647", field="retry"),
    "a retry of LF": post("/events/a?retry=5%0adata:x", 400, "digits only", field="retry"),
    # Bodies.
    "half a character at the end": post("/events/a", 400, "not UTF-8", b"caf\xc3", offset=3),
    "a byte that is in no character": post("/events/a", 400, "not UTF-8", b"a\xff", offset=1),
    "an encoded surrogate": post("/events/a", 400, "not UTF-8", b"\xed\xa0\x80", offset=0),
    "65,537 bytes": post("/events/a", 413, "SSE_MAX_EVENT_BYTES", b"x" * 65_537, limit=65_536),
    "65,537 bytes of 2-byte characters": post("/events/a", 413, "65536", "é".encode() * 32_769, limit=65_536),
    # Batches.
    "a batch that is no NDJSON": post("/events", 415, "application/x-ndjson", GOOD, {"Content-Type": "text/plain"}),
    "an empty batch": lines(b"", says="no events"),
    "one bad line": lines(GOOD, GOOD, b"nonsense", GOOD, says="line 3: not JSON", line=3),
    "half a character in a line": lines(GOOD, b'{"channel":"never","data":"\xc3"}', says="line 2: not UTF-8", line=2),
    "a bad channel in a line": lines(GOOD, b'{"channel":"%","data":""}', says="line 2: channel", line=2),
    "NUL in a line's type": lines(GOOD, b'{"channel":"a","data":"","event":"\\u0000"}', says="line 2: event", line=2),
    "a lone surrogate in a line": lines(GOOD, b'{"channel":"a","data":"\\ud800"}', says="line 2: data", line=2),
    "a line too large": lines(
        GOOD, b'{"channel":"a","data":"%s"}' % (b"x" * 65_537), status=413, says="line 2: data is over", line=2
    ),
    "one bad line among 10,000": lines(
        *[GOOD] * 7_777, b'{"channel":"never"}', *[GOOD] * 2_222, says="line 7778: has no member 'data'", line=7778
    ),
    "10,001 events": lines(*[GOOD] * 10_001, status=413, says="at most 10000 events", limit=10_000),
    "a batch of more bytes than allowed": post(
        "/events", 413, "SSE_MAX_BATCH_BYTES", b"\n" * 2_000_001, NDJSON, limit=2_000_000
    ),
    # Headers.
    "a key with a space": post("/events/a", 400, "Idempotency-Key", headers={"Idempotency-Key": "a b"}),
    "an empty key": post("/events/a", 400, "Idempotency-Key", headers={"Idempotency-Key": ""}),
    "a key of 256": post("/events/a", 400, "Idempotency-Key", headers={"Idempotency-Key": "k" * 256}),
    "a key that is no ASCII": post("/events/a", 400, "Idempotency-Key", headers={"Idempotency-Key": "é"}),
    "only HTML is accepted": get("/events/a", 406, "Accept", {"Accept": "text/html"}),
    "event streams are excluded": get("/events/a", 406, "Accept", {"Accept": "text/event-stream;q=0, */*"}),
    # Methods and paths.
    "PATCH": Bad("PATCH", "/events/a", 405, "not allowed"),
    "PUT": Bad("PUT", "/events", 405, "not allowed", b"x"),
    "no such path": get("/nope", 404, ""),
    "a path below a channel": get("/events/a/b", 404, ""),
    "a doubled slash": get("/events//a", 404, ""),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_an_invalid_request_is_refused_with_a_problem_that_names_it(server: Server, case: Bad) -> None:
    before = _latest(server)
    answer = server.request(case.method, case.target, case.body, case.headers, timeout=20)
    assert answer.status == case.status, answer.body[:300]
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == case.status and problem["title"]
    assert case.says in problem["detail"]
    assert problem.items() >= case.more.items()
    assert len(answer.body) < 600, "what a client sent is not sent back at length"
    if case.status == 405:
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"} | erasing(case.target)
    assert _latest(server) == before, "something was stored"


def _latest(server: Server) -> str:
    """Return the log's newest id, from a stream's opening."""
    with SSEClient(server.port, "/events/never") as client:
        return client.next_event().id or ""


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        pytest.param("/events/a", {"Last-Event-ID": "1" * 1_000_000}, 431, id="in the header"),
        pytest.param("/events/a?lastEventId=" + "1" * 1_000_000, {}, 414, id="in the query"),
    ],
)
def test_a_cursor_of_a_megabyte_is_refused_before_it_is_read(
    server: Server, target: str, headers: dict[str, str], status: int
) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n"
    request += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    answer = _exchange(server, request.encode())
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]


def _exchange(server: Server, request: bytes) -> bytes:
    """Send a request, even if the server closes early, and read the whole answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:

        def send() -> None:
            try:
                sock.sendall(request)
            except OSError:
                pass  # it has answered and closed, as it should

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        sender.join(10)
        return answer


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_of_ten_megabytes_is_refused_without_reading_it_to_its_end(server: Server, framing: str) -> None:
    size = 10_000_000
    if framing == "length":
        request = b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    else:
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        request = b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        request += chunk * (size // 65536) + b"0\r\n\r\n"
    began = time.monotonic()
    answer = _exchange(server, request)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert b"application/problem+json" in answer and b"SSE_MAX_EVENT_BYTES" in answer
    assert time.monotonic() - began < 5


def test_a_client_that_waits_for_continue_is_refused_before_it_sends_ten_megabytes(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(
            b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param("nonsense", id="nonsense"),
        pytest.param("1" * 5000, id="digits without end"),
        pytest.param("1732345678901-0\tx", id="more behind it"),
        pytest.param("<script>alert(1)</script>", id="markup"),
        pytest.param("\xff\xfe", id="bytes that are no text"),
    ],
)
def test_an_invalid_cursor_gets_a_stream_with_a_reset_that_quotes_it_escaped(
    server: Server, cursor: str
) -> None:
    """A 400 would make an EventSource give up for ever."""
    with SSEClient(server.port, "/events/cursors", headers={"Last-Event-ID": cursor}) as client:
        reset = client.events_until(lambda event: event.event == "stream-reset", 5)[-1]
        told = json.loads(reset.data or "")
        assert told["reason"] == "malformed"
        assert len(told["requested"]) <= 64
        assert told["requested"].isprintable() and told["requested"].isascii()
        name = server.publish("cursors", "on")
        assert client.events_until(lambda event: event.id == name)[-1].data == "on"


def test_data_with_line_ends_nul_and_control_characters_cannot_forge_an_event(server: Server) -> None:
    hostile = "a\rid: 9-9\r\nevent: forged\n\ndata: forged\n\n\0\x1b[31m\u2028\u2029\x85\ufeff"
    with SSEClient(server.port, "/events/forged") as client:
        client.next_event()
        name = server.publish("forged", hostile, "?event=plain")
        event = client.next_event()
        assert (event.id, event.event) == (name, "plain")
        assert event.data == hostile.replace("\r\n", "\n").replace("\r", "\n")
        server.publish("forged", "next")
        assert client.next_event().data == "next"


def test_head_answers_the_headers_of_a_stream_and_no_body(server: Server) -> None:
    with SSEClient(server.port, "/events/a", method="HEAD") as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream"
        assert client.headers["cache-control"] == "no-store, no-transform"
        assert client.headers["x-accel-buffering"] == "no"
        assert "content-length" not in client.headers, "a stream has no length, least of all 0"
        assert client.wait_closed() is Ending.COMPLETE and not client.body
    for target, status in (("/events/a%00", 400), ("/events?channel=", 400)):
        answer = server.request("HEAD", target)
        assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize("accept", ["text/event-stream;charset=UTF-8", "text/*", "*/*", "text/html, *; q=.2, */*; q=.2", ""])
def test_a_client_that_accepts_event_streams_gets_one(server: Server, accept: str) -> None:
    with SSEClient(server.port, "/events/a", headers={"Accept": accept}) as client:
        assert client.status == 200
        assert client.next_event().id


def test_options_says_what_is_allowed(server: Server) -> None:
    for target in ("/events", "/events/a"):
        answer = server.request("OPTIONS", target)
        assert (answer.status, answer.body) == (204, b"")
        assert set(answer.headers["Allow"].split(", ")) >= {"GET", "HEAD", "OPTIONS", "POST"}


def test_a_preflight_is_answered_only_for_an_allowed_origin() -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key"}
    with Server(SSE_CORS_ORIGINS="https://app.example.com") as server:
        allowed = server.request("OPTIONS", "/events/a", headers={"Origin": "https://app.example.com", **asks})
        assert allowed.status == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
        assert "idempotency-key" in allowed.headers["Access-Control-Allow-Headers"].lower()
        other = server.request("OPTIONS", "/events/a", headers={"Origin": "https://evil.example.com", **asks})
        assert "Access-Control-Allow-Origin" not in other.headers


def test_bad_input_leaves_no_traceback(server: Server) -> None:
    eventually(lambda: server.request("GET", "/healthz").status == 200, 5)
    assert "Traceback" not in server.log_text()
