"""Streams whose client goes away, or says something where nobody listens."""

from __future__ import annotations

from tests.live.raw.case import Case, Differs, request
from tests.live.raw.steps import (
    Answer,
    Close,
    Closed,
    Events,
    Flood,
    HalfClose,
    Healthy,
    Holds,
    LetsGo,
    Publish,
    Reset,
    Send,
    StaysOpen,
    Stream,
)


def _open(channel: str) -> Send:
    return Send(request("GET", f"/events/{channel}"))


_DEAF = (
    "net/http reads one byte ahead of a handler that runs, and no further: "
    "with a byte there it learns of the end only from a write that fails"
)

GOING = (
    Case(
        "half-close of a stream",
        (_open("half"), Stream(), HalfClose(), Closed(quietly=False), LetsGo()),
    ),
    Case("reset of a stream", (_open("reset"), Stream(), Reset(), LetsGo())),
    Case("close of a stream", (_open("closed"), Stream(), Close(), LetsGo())),
    Case(
        "reset of a stream that has just sent something",
        (_open("just"), Stream(), Publish("just", b"one"), Reset(), LetsGo()),
    ),
    Case(
        "bytes and then the end, during a stream",
        (
            _open("last-words"),
            Stream(),
            Send(b"bye\r\n"),
            HalfClose(),
            Closed(quietly=False),
            LetsGo(),
        ),
        go=Differs(_DEAF, (_open("last-words"), Stream(), Send(b"bye\r\n"), HalfClose(), Holds(2.0))),
    ),
    Case(
        "a flood and then a reset, during a stream",
        (_open("flood-reset"), Stream(), Flood(8_000_000), Reset(), LetsGo(), Healthy()),
        go=Differs(_DEAF, (_open("flood-reset"), Stream(), Flood(8_000_000), Reset(), Holds(2.0), Healthy())),
    ),
)

TALKING = (
    Case(
        "bytes during a stream",
        (_open("bytes"), Stream(), Send(b"x" * 1000), StaysOpen(0.3), Publish("bytes", b"on"), Events(b"on")),
    ),
    Case(
        "a second request during a stream is not answered",
        (
            _open("second"),
            Stream(),
            Send(request("GET", "/openapi.json") + request("GET", "/events/other")),
            StaysOpen(0.5),
            Publish("other", b"not here"),
            Publish("second", b"here"),
            Events(b"here"),
            StaysOpen(0.3),
        ),
    ),
    Case(
        "a request in the same packet as the stream's",
        (
            Send(request("GET", "/events/packet") + request("GET", "/openapi.json")),
            Stream(),
            StaysOpen(0.5),
            Publish("packet", b"on"),
            Events(b"on"),
        ),
    ),
    Case(
        "half a request in the same packet, then the end",
        (
            Send(request("GET", "/events/packet-end") + b"GET /"),
            Stream(),
            HalfClose(),
            Closed(quietly=False),
            LetsGo(),
        ),
    ),
)

SHAPES = (
    Case(
        "a stream over HTTP/1.0",
        (
            Send(request("GET", "/events/old", version="1.0")),
            Stream(delimited=True),
            Publish("old", b"plain"),
            Events(b"plain"),
            HalfClose(),
            Closed(),
            LetsGo(),
        ),
    ),
    Case(
        "a stream over HTTP/1.0 with keep-alive",
        (
            Send(request("GET", "/events/old-alive", "Connection: keep-alive", version="1.0")),
            Stream(delimited=True),
            Publish("old-alive", b"plain"),
            Events(b"plain"),
        ),
    ),
    Case(
        "HEAD of a stream",
        (
            Send(request("HEAD", "/events/head")),
            Answer(200, {"content-type": "text/event-stream", "connection": "close"}, head=True),
            Closed(),
        ),
    ),
    Case(
        "a stream asked for with a body",
        (
            Send(request("GET", "/events/with-body", "Content-Length: 5", body=b"hello")),
            Stream(),
            Publish("with-body", b"on"),
            Events(b"on"),
        ),
    ),
    Case(
        "many events at once, none lost",
        (_open("many"), Stream(), Publish("many", b"line", 100), Events(b"line", 100)),
    ),
)

CASES = (*GOING, *TALKING, *SHAPES)
