"""Slow, silent and stalled clients; each time-out, and each of them switched off."""

from __future__ import annotations

from tests.live.raw.case import (
    HEADER,
    HEADER_ONLY,
    IDLE,
    OFF,
    PAGE,
    READ,
    READ_ONLY,
    WRITE,
    Case,
    Differs,
    due,
    post,
    request,
)
from tests.live.raw.steps import (
    CONTINUE,
    Answer,
    Closed,
    Events,
    Exactly,
    Holds,
    LetsGo,
    Mark,
    Pause,
    Publish,
    ReadSlowly,
    Send,
    StaysOpen,
    Step,
    Stream,
    Trickle,
)

PARTIAL = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODYLESS = request("POST", "/events/timeouts", "Content-Length: 10")
_REFUSED = request("POST", "/nowhere", "Content-Length: 10", body=b"01")
CHUNKED = request("POST", "/events/timeouts", "Transfer-Encoding: chunked")
TOO_LATE = Answer(408, {"content-type": "application/problem+json", "connection": "close"}, within=due(READ))

HEADERS = (
    Case("silence after the connect", (Closed(due(HEADER)),)),
    Case("slow header", (Send(PARTIAL), Closed(due(HEADER)))),
    Case("byte-by-byte header without an end", (Send(PARTIAL), Trickle(b"x" * 200, 0.01), Closed(due(HEADER)))),
    Case("byte-by-byte header in time", (Trickle(request("GET", "/openapi.json"), 0.002), Answer(200))),
    Case("empty line of the header in two pieces", (Send(PAGE[:-1]), Pause(0.2), Send(PAGE[-1:]), Answer(200))),
    Case(
        "slow header of a second request, counted from its first byte",
        (Send(PAGE), Answer(200), Pause(HEADER * 2), Mark(), Send(PARTIAL), Closed(due(HEADER))),
    ),
)

BODIES = (
    Case("body never sent", (Send(BODYLESS), TOO_LATE, Closed(due(READ)))),
    Case("slow body", (Send(BODYLESS), Trickle(b"0123456789", 0.3), TOO_LATE, Closed(due(READ)))),
    Case("slow body in time", (Send(BODYLESS), Trickle(b"0123456789", 0.05), Answer(201))),
    Case("chunked body without an end", (Send(CHUNKED + b"5\r\nhello\r\n"), TOO_LATE, Closed(due(READ)))),
    Case(
        "chunked body, a byte at a time",
        (Send(CHUNKED), Trickle(b"5\r\nhello\r\n0\r\n\r\n", 0.02), Answer(201)),
    ),
    Case(
        "the body's time counts from the request's beginning",
        (Send(BODYLESS[:30]), Pause(0.4), Send(BODYLESS[30:]), TOO_LATE, Closed(due(READ))),
    ),
    Case(
        "the body's time counts from the request's beginning, also of one that came with the end of another",
        (
            Send(BODYLESS),
            Pause(READ - 0.5),
            Send(b"0123456789" + BODYLESS),
            Answer(201),
            Pause(0.9),
            Send(b"0123456789"),
            Answer(201),
        ),
    ),
    Case(
        "a body promised with 100-continue and never sent",
        (
            Send(request("POST", "/events/timeouts", "Content-Length: 10", "Expect: 100-continue")),
            Exactly(CONTINUE),
            TOO_LATE,
            Closed(due(READ)),
        ),
    ),
)

IDLES = (
    Case("idle keep-alive", (Send(PAGE), Answer(200), Mark(), Closed(due(IDLE)))),
    Case(
        "request after idle",
        (Send(PAGE), Answer(200), Pause(READ + 0.4), Send(post("idle", b"x")), Answer(201)),
    ),
    Case(
        "idle after each of several requests",
        (Send(PAGE), Answer(200), Pause(READ), Send(PAGE), Answer(200), Mark(), Closed(due(IDLE))),
    ),
)

# A head that the connection has seen so often that it is no longer parsed (sse/worker/head_memory.py).
KNOWN = post("timeouts", b"0123456789")
_KNOWN_HEAD, _, _ = KNOWN.partition(b"0123456789")
_OFTEN: tuple[Step, ...] = (Send(KNOWN), Answer(201)) * 3

HEADS = (
    Case("slow header, and the same head came before", (*_OFTEN, Mark(), Send(KNOWN[:40]), Closed(due(HEADER)))),
    Case(
        "body never sent, and the same head came before",
        (*_OFTEN, Mark(), Send(_KNOWN_HEAD), TOO_LATE, Closed(due(READ))),
    ),
    Case(
        "slow body, and the same head came before",
        (*_OFTEN, Mark(), Send(_KNOWN_HEAD), Trickle(b"0123456789", 0.3), TOO_LATE, Closed(due(READ))),
    ),
    Case(
        "body in time, in pieces, and the same head came before",
        (*_OFTEN, Send(_KNOWN_HEAD), Trickle(b"0123456789", 0.02), Answer(201), Send(KNOWN * 2), Answer(201), Answer(201)),
    ),
    Case(
        "idle, after a head that came often",
        (*_OFTEN, Pause(READ), *_OFTEN, Mark(), Closed(due(IDLE))),
    ),
    Case(
        "header over its limit, after a head that came often",
        (*_OFTEN, Send(KNOWN[:-12] + b"X-Long: " + b"x" * 24_000), Answer(431), Closed()),
    ),
)

EVENT = b"e" * 32_000
SMALL_EVENT = b"e" * 4_000

# Linux wakes a writer when a third of the send buffer is free, so at 10 KB/s it takes seconds until it does. The time
# stays below TCP_USER_TIMEOUT (three write time-outs), which also runs while a reader's window is closed.
_SLOWLY: tuple[Step, ...] = (
    Send(request("GET", "/events/slowly")),
    Stream(),
    Publish("slowly", SMALL_EVENT, 100),
    ReadSlowly(1024, 0.1, WRITE * 1.6),
)

WRITES = (
    Case(
        "reader that stops, of ordinary answers",
        (Send(request("GET", "/") * 200), Mark(), LetsGo(due(WRITE, 3))),
        small_buffers=True,
    ),
    Case(
        "reader that stops, of a stream",
        (
            Send(request("GET", "/events/stopped")),
            Stream(),
            Mark(),
            Publish("stopped", EVENT, 60),
            LetsGo(due(WRITE, 4)),
        ),
        small_buffers=True,
    ),
    Case(
        "reader that trickles so slowly that the kernel asks for no more bytes within the time-out",
        (*_SLOWLY, Events(SMALL_EVENT, 100), StaysOpen(0.3)),
        go=Differs(
            "net/http's write deadline sees that a write has not ended, not that the client goes on reading",
            (*_SLOWLY, LetsGo(due(WRITE, 60))),
        ),
        small_buffers=True,
    ),
    Case(
        "reader that trickles, of a stream",
        (
            Send(request("GET", "/events/trickled")),
            Stream(),
            Publish("trickled", SMALL_EVENT, 100),
            ReadSlowly(4096, 0.05, WRITE * 1.6),
            Events(SMALL_EVENT, 100),
            StaysOpen(0.5),
        ),
        small_buffers=True,
    ),
)


def _each_off() -> tuple[Case, ...]:
    """0 = off: each is waited for longer than its default lasts, so that "0" is not taken for "not set"."""
    stalled: tuple[Step, ...] = (
        Send(request("GET", "/events/off")),
        Stream(server_header=None),
        Publish("off", EVENT, 60),
        Holds(11.5),
        Events(EVENT, 60),
    )
    return (
        Case("no header time-out: silence", (StaysOpen(6.5), Send(PAGE), Answer(200)), OFF),
        Case(
            "no header time-out: slow header",
            (Send(PARTIAL), StaysOpen(6.5), Send(b"x\r\n\r\n"), Answer(200)),
            OFF,
        ),
        Case("no read time-out", (Send(BODYLESS), StaysOpen(16), Send(b"0123456789"), Answer(201)), OFF),
        Case(
            "no read time-out: the rest of a refused body that never comes",
            (Send(_REFUSED), Answer(404), Mark(), Closed(due(5.0))),
            OFF,
            go=Differs("net/http waits for the rest before it answers, without end", (Send(_REFUSED), StaysOpen(6.5))),
        ),
        Case("no idle time-out", (Send(PAGE), Answer(200), StaysOpen(6.5), Send(PAGE), Answer(200)), OFF),
        Case("no write time-out", stalled, OFF, small_buffers=True),
        Case("no header time-out: the read time-out still bounds it", (Closed(due(READ)),), READ_ONLY),
        Case(
            "no idle time-out, but a read time-out",
            (Send(PAGE), Answer(200), StaysOpen(READ * 2), Send(PAGE), Answer(200)),
            READ_ONLY,
            go=Differs(
                "net/http lets ReadTimeout stand in for an IdleTimeout of 0; here 0 is off",
                (Send(PAGE), Answer(200), Mark(), Closed(due(READ))),
            ),
        ),
        Case(
            "no read time-out, but a header time-out",
            (Send(BODYLESS), StaysOpen(HEADER * 4), Send(b"0123456789"), Answer(201)),
            HEADER_ONLY,
        ),
        Case("the header time-out alone", (Send(PARTIAL), Closed(due(HEADER))), HEADER_ONLY),
    )


STREAMS = (
    Case(
        "a stream outlives every time-out",
        (
            Send(request("GET", "/events/quiet")),
            Stream(),
            StaysOpen(IDLE * 1.5),
            Publish("quiet", b"late"),
            Events(b"late"),
        ),
    ),
)

CASES = (*HEADERS, *BODIES, *IDLES, *HEADS, *WRITES, *_each_off(), *STREAMS)
