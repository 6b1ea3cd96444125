"""Limits of a request's head, ambiguous framing (request smuggling), 100-continue, and plain nonsense."""

from __future__ import annotations

from tests.live.raw.case import HEADER, PAGE, READ, Case, Differs, due, post, request
from tests.live.raw.steps import (
    AT_ONCE,
    CONTINUE,
    Answer,
    Closed,
    Exactly,
    HalfClose,
    Pause,
    Refused,
    Send,
    StaysOpen,
    Stream,
    Window,
)

BAD = Refused(AT_ONCE)


def _fields(count: int, size: int = 1) -> tuple[str, ...]:
    """Header lines that bring ``size`` bytes each."""
    return tuple(f"X-{number:04}: {'v' * max(size - 10, 1)}" for number in range(count))


CLOSES = {"connection": "close"}
_PART_AHEAD = Send(PAGE + request("GET", "/", *_fields(17, 1024)))
_TOO_LARGE = (Send(post("large", b"x" * 100_000, "Connection: close")), Answer(413, CLOSES))

LIMITS = (
    Case(
        "a header of 17 KB in one field",
        (Send(request("GET", "/", *_fields(1, 17 * 1024))), Answer(431), Closed()),
    ),
    Case(
        "a header of 17 KB in 17 fields",
        (Send(request("GET", "/", *_fields(17, 1024))), Answer(431), Closed()),
    ),
    Case(
        "a header of 15 KB in one field",
        (Send(request("GET", "/openapi.json", *_fields(1, 15 * 1024))), Answer(200)),
    ),
    Case(
        "a header of 15 KB in 15 fields",
        (Send(request("GET", "/openapi.json", *_fields(15, 1024))), Answer(200)),
    ),
    Case(
        "a header line that never ends",
        (Send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 24_000), Answer(431), Closed()),
    ),
    Case("100 headers", (Send(request("GET", "/openapi.json", *_fields(99))), Answer(200))),
    Case(
        "101 headers",
        (Send(request("GET", "/openapi.json", *_fields(100))), Answer(431), Closed()),
        go=Differs(
            "net/http limits their bytes only; gunicorn limits their number, too, and nobody needs more",
            (Send(request("GET", "/openapi.json", *_fields(100))), Answer(200)),
        ),
    ),
    Case(
        "header over its limit, of which a part came with the request before",
        (_PART_AHEAD, Answer(200), Answer(431), Closed()),
        go=Differs("net/http does not count what it has read ahead", (_PART_AHEAD, Answer(200), Answer(200))),
    ),
    Case(
        "a very long request line",
        (Send(request("GET", "/" + "a" * 24_000)), Answer((414, 431)), Closed()),
    ),
    Case("a body that is too large", (Send(post("large", b"x" * 100_000)), Answer(413))),
    Case(
        "a body that is too large, and nobody reads",
        (*_TOO_LARGE, Closed(orderly=True)),
        go=Differs("net/http does not linger where the client asked for the close", (*_TOO_LARGE, Closed())),
    ),
    Case(
        "a chunked body that is too large",
        (
            Send(request("POST", "/events/large", "Transfer-Encoding: chunked")),
            Send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n"),
            Send(b"8001\r\n" + b"x" * 0x8001 + b"\r\n0\r\n\r\n"),
            Answer(413),
        ),
    ),
)

_STRICT = "what two parsers may read differently is refused here; RFC 9112 lets net/http repair it"
_HELLO = request("POST", "/events/framing", "Content-Length: 5", "Transfer-Encoding: chunked")
_TWICE = request("POST", "/events/framing", "Content-Length: 5", "Content-Length: 5", body=b"hello")
_FOLDED = request("GET", "/openapi.json", "X-Folded: a\r\n b")
_BARE = PAGE.replace(b"\r\n", b"\n")
_CHUNKED_OLD = request("POST", "/events/framing", "Transfer-Encoding: chunked", version="1.0")

FRAMING = (
    Case(
        "Content-Length twice, different",
        (
            Send(request("POST", "/events/framing", "Content-Length: 5", "Content-Length: 6", body=b"hello!")),
            BAD,
        ),
    ),
    Case(
        "Content-Length twice, the same",
        (Send(_TWICE), BAD),
        go=Differs(_STRICT, (Send(_TWICE), Answer(201))),
    ),
    Case(
        "Content-Length and Transfer-Encoding",
        (Send(_HELLO + b"5\r\nhello\r\n0\r\n\r\n"), BAD),
        go=Differs(_STRICT, (Send(_HELLO + b"5\r\nhello\r\n0\r\n\r\n"), Answer(201))),
    ),
    Case(
        "Transfer-Encoding: chunked over HTTP/1.0",
        (Send(_CHUNKED_OLD + b"5\r\nhello\r\n0\r\n\r\n"), BAD),
        go=Differs(_STRICT, (Send(_CHUNKED_OLD + b"5\r\nhello\r\n0\r\n\r\n"), Answer(201), Closed())),
    ),
    Case(
        "a transfer coding nobody knows",
        (
            Send(request("POST", "/events/framing", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
            Answer(501),
            Closed(),
        ),
    ),
    Case(
        "a transfer coding before chunked",
        (
            Send(request("POST", "/events/framing", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
            Answer((400, 501)),
            Closed(),
        ),
    ),
    Case(
        "a chunk size that is no number",
        (Send(request("POST", "/events/framing", "Transfer-Encoding: chunked", body=b"xyz\r\n")), BAD),
    ),
    Case(
        "a signed Content-Length",
        (Send(request("POST", "/events/framing", "Content-Length: +5", body=b"hello")), BAD),
    ),
    Case(
        "a negative Content-Length",
        (Send(request("POST", "/events/framing", "Content-Length: -5", body=b"hello")), BAD),
    ),
    Case(
        "a chunked body",
        (
            Send(
                request("POST", "/events/framing", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n") + PAGE
            ),
            Answer(201),
            Answer(200),
        ),
    ),
    Case(
        "bare LF for line ends",
        (Send(_BARE), Refused(Window(0, due(HEADER).latest))),
        go=Differs(_STRICT, (Send(_BARE), Answer(200))),
    ),
    Case("a folded header", (Send(_FOLDED), BAD), go=Differs(_STRICT, (Send(_FOLDED), Answer(200)))),
    Case("a space before a header's colon", (Send(request("GET", "/openapi.json", "X-Space : v")), BAD)),
    Case("NUL in a header's value", (Send(request("GET", "/openapi.json", "X-Nul: a\0b")), BAD)),
    Case("no Host in HTTP/1.1", (Send(request("GET", "/openapi.json", host=None)), BAD)),
    Case("two Hosts", (Send(request("GET", "/openapi.json", "Host: other.test")), BAD)),
)

TARGETS = (
    Case(
        "the absolute form of a target",
        (Send(request("GET", "http://localhost/openapi.json")), Answer(200), Send(PAGE), Answer(200)),
    ),
    Case("an encoded target", (Send(request("GET", "/%6fpenapi.json")), Answer(200))),
    Case(
        "a version that does not exist",
        (Send(request("GET", "/", version="9.9")), Answer((400, 505)), Closed()),
    ),
    Case(
        "no HTTP at all",
        (Send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n"), BAD),
    ),
    Case(
        "an empty line before the request",
        (Send(b"\r\n" + PAGE), Answer(200)),
        go=Differs("RFC 9112 section 2.2 says SHOULD ignore it; net/http answers 400", (Send(b"\r\n" + PAGE), BAD)),
    ),
    Case(
        "an empty request, then the end",
        (Send(b"\r\n"), HalfClose(), Refused(AT_ONCE)),
    ),
)

# net/http first waits a while for the body that it did not ask for.
LATER = Window(0, due(READ).latest)
_WAITS = ("Content-Length: 5", "Expect: 100-continue")

CONTINUES = (
    Case(
        "100-continue: the client waits",
        (
            Send(request("POST", "/events/expect", *_WAITS)),
            Exactly(CONTINUE),
            Send(b"hello"),
            Answer(201),
            Send(PAGE),
            Answer(200),
        ),
    ),
    Case(
        "100-continue: the client does not wait",
        (
            Send(request("POST", "/events/expect", *_WAITS, body=b"hello")),
            Answer(201, optional_continue=True),
        ),
    ),
    Case(
        "100-continue: a body that nobody wants, by its size",
        (
            Send(request("POST", "/events/expect", "Content-Length: 100000", "Expect: 100-continue")),
            Answer(413, CLOSES),
            Closed(LATER),
        ),
    ),
    Case(
        "100-continue: a body that nobody wants, by its path",
        (Send(request("POST", "/nowhere", *_WAITS)), Answer(404, CLOSES), Closed(LATER)),
    ),
    Case(
        "100-continue: a body that nobody wants, by its method",
        (Send(request("PUT", "/events/expect", *_WAITS)), Answer(405, CLOSES), Closed(LATER)),
    ),
    Case(
        "100-continue: no body announced",
        (Send(request("GET", "/events/expect-nothing", "Expect: 100-continue")), Stream(), StaysOpen(0.2)),
    ),
    Case(
        "100-continue over HTTP/1.0",
        (
            Send(request("POST", "/events/expect", *_WAITS, version="1.0")),
            StaysOpen(0.3),
            Send(b"hello"),
            Answer(201),
            Closed(),
        ),
    ),
    Case(
        "an expectation nobody knows",
        (Send(request("POST", "/events/expect", "Content-Length: 5", "Expect: tea")), Answer(417)),
    ),
    Case(
        "100-continue: a slow client",
        (
            Send(request("POST", "/events/expect", *_WAITS)),
            Exactly(CONTINUE),
            Pause(0.5),
            Send(b"hello"),
            Answer(201),
        ),
    ),
)

CASES = (*LIMITS, *FRAMING, *TARGETS, *CONTINUES)
