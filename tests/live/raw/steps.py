"""The words that cases are written in: each step is a value; ``run`` does it, and raises if all is not well."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from tests.live.raw.conversation import PATIENCE, Conversation, Surprise
from tests.support.sse_parser import ChunkedDecoder, StreamEvent

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Step(Protocol):
    """What a case consists of."""

    def run(self, talk: Conversation) -> None: ...


@dataclass(frozen=True)
class Window:
    """Seconds since the mark between which something must happen."""

    earliest: float
    latest: float

    def check(self, talk: Conversation, what: str) -> None:
        """Raise unless now is within."""
        if not self.earliest <= (now := talk.elapsed()) <= self.latest:
            raise Surprise(f"{what} after {now:.2f} s, not between {self.earliest:g} and {self.latest:g}")


AT_ONCE = Window(0, 1.0)


# --- what the client does -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """Count time from now on."""

    def run(self, talk: Conversation) -> None:
        talk.mark = time.monotonic()


@dataclass(frozen=True)
class Send:
    """Send bytes, all at once."""

    octets: bytes

    def run(self, talk: Conversation) -> None:
        talk.sock.sendall(self.octets)


@dataclass(frozen=True)
class Trickle:
    """Send byte by byte; stop early when the server says or does anything (what, the next step judges)."""

    octets: bytes
    every: float

    def run(self, talk: Conversation) -> None:
        for octet in self.octets:
            try:
                talk.sock.sendall(bytes((octet,)))
            except ConnectionError:
                talk.ended = "RST"
                return
            poll = select.poll()
            poll.register(talk.sock, select.POLLIN)
            if poll.poll(self.every * 1000):
                return


@dataclass(frozen=True)
class Flood:
    """Send as much as the server's end will take, at most ``count`` bytes."""

    count: int

    def run(self, talk: Conversation) -> None:
        talk.sock.settimeout(0.5)
        left = self.count
        with contextlib.suppress(TimeoutError, ConnectionError):
            while left > 0:
                left -= talk.sock.send(b"x" * min(left, 65536))
        talk.sock.settimeout(PATIENCE)


@dataclass(frozen=True)
class Pause:
    """Do nothing."""

    seconds: float

    def run(self, talk: Conversation) -> None:
        time.sleep(self.seconds)


@dataclass(frozen=True)
class HalfClose:
    """FIN, and stay to read. Time counts from here, as with the other ways to go."""

    def run(self, talk: Conversation) -> None:
        talk.remember_socket()
        talk.mark = time.monotonic()
        talk.sock.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Close:
    """Close the socket."""

    def run(self, talk: Conversation) -> None:
        talk.remember_socket()
        talk.mark = time.monotonic()
        talk.sock.close()


@dataclass(frozen=True)
class Reset:
    """RST. ``unseen``: do not wait until the server has accepted the connection."""

    unseen: bool = False

    def run(self, talk: Conversation) -> None:
        if not self.unseen:
            talk.remember_socket()
        talk.mark = time.monotonic()
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        talk.sock.close()


@dataclass(frozen=True)
class Publish:
    """Publish events over another connection."""

    channel: str
    data: bytes
    count: int = 1

    def run(self, talk: Conversation) -> None:
        for _ in range(self.count):
            talk.server.publish(self.channel, self.data)


@dataclass(frozen=True)
class ReadSlowly:
    """Read a little now and then; the server must not end the connection meanwhile."""

    size: int
    every: float
    seconds: float

    def run(self, talk: Conversation) -> None:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            talk.receive(time.monotonic(), self.size)
            if talk.ended:
                raise Surprise(f"{talk.ended} after {talk.elapsed():.2f} s of slow reading")
            time.sleep(self.every)


# --- what the server must do --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    :param status: one, or several that are all right.
    :param headers: values that must be there (compared in lower case); None: the header must not be there.
    :param present: headers that must be there, whatever they say.
    :param head: it answers HEAD, so there is no body whatever its headers say.
    :param optional_continue: a 100 may come before it.
    """

    status: int | tuple[int, ...]
    headers: Mapping[str, str | None] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    within: Window | None = None
    head: bool = False
    optional_continue: bool = False
    body: bytes | None = None

    def run(self, talk: Conversation) -> None:
        patience = self.within.latest + 1 if self.within else PATIENCE
        head = talk.head(patience)
        if head.status == 100 and self.optional_continue:
            head = talk.head(patience)
        if self.within:
            self.within.check(talk, f"an answer ({head.status})")
        wanted = self.status if isinstance(self.status, tuple) else (self.status,)
        if head.status not in wanted:
            raise Surprise(f"status {head.status}, not {wanted}; then {bytes(talk.unread[:200])!r}")
        for name, value in self.headers.items():
            got = head.headers.get(name)
            if (got or "").lower() != (value or "").lower() or (got is None) != (value is None):
                raise Surprise(f"header {name}: {got!r}, not {value!r}")
        if missing := [name for name in self.present if name not in head.headers]:
            raise Surprise(f"no header {missing}")
        body = b"" if self.head or head.status in (204, 304) else talk.body(head)
        if self.body is not None and body != self.body:
            raise Surprise(f"body {body!r}, not {self.body!r}")


@dataclass(frozen=True)
class Exactly:
    """These bytes, and no others for a moment."""

    octets: bytes

    def run(self, talk: Conversation) -> None:
        talk.need(len(self.octets), repr(self.octets))
        talk.receive(time.monotonic() + 0.1)
        if talk.unread != self.octets:
            raise Surprise(f"{bytes(talk.unread[:200])!r} instead of {self.octets!r}")
        talk.take(len(self.octets))


@dataclass(frozen=True)
class Closed:
    """The server ends the connection within the window; without a word before it if ``quietly``; if ``orderly``, not by
    a reset, which can destroy an answer that is still on its way."""

    within: Window = AT_ONCE
    quietly: bool = True
    orderly: bool = False

    def run(self, talk: Conversation) -> None:
        while talk.receive(talk.mark + self.within.latest + 1.0):
            pass
        if not talk.ended:
            raise Surprise(f"still open after {talk.elapsed():.2f} s")
        self.within.check(talk, f"closed ({talk.ended})")
        if self.orderly and talk.ended == "RST":
            raise Surprise("a reset")
        if talk.unread and self.quietly:
            raise Surprise(f"bytes before the end: {bytes(talk.unread[:200])!r}")


@dataclass(frozen=True)
class Refused:
    """400, or an end without an answer: either way nothing of the request was believed."""

    within: Window

    def run(self, talk: Conversation) -> None:
        Closed(self.within, quietly=False).run(talk)
        if talk.unread and talk.head().status != 400:
            raise Surprise("an answer that is not 400")


@dataclass(frozen=True)
class StaysOpen:
    """Nothing comes, and the connection lives."""

    seconds: float

    def run(self, talk: Conversation) -> None:
        if talk.receive(time.monotonic() + self.seconds) or talk.ended:
            raise Surprise(f"{talk.ended or bytes(talk.unread[:200])!r} after {talk.elapsed():.2f} s")


@dataclass(frozen=True)
class LetsGo:
    """No process of the server has a descriptor of the connection any more, since a moment in the window."""

    within: Window = AT_ONCE

    def run(self, talk: Conversation) -> None:
        talk.remember_socket()
        while talk.server_holds_socket():
            if talk.elapsed() > self.within.latest:
                raise Surprise(f"the server still holds the connection after {talk.elapsed():.2f} s")
            time.sleep(0.02)
        self.within.check(talk, "let go")


@dataclass(frozen=True)
class Holds:
    """The server keeps the connection's descriptor for this long."""

    seconds: float

    def run(self, talk: Conversation) -> None:
        talk.remember_socket()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if not talk.server_holds_socket():
                raise Surprise(f"let go after {talk.elapsed():.2f} s")
            time.sleep(0.05)


@dataclass(frozen=True)
class Stream:
    """The head of an event stream and its opening. ``delimited``: by the connection's end (HTTP/1.0)."""

    headers: ClassVar[Mapping[str, str]] = {"cache-control": "no-store, no-transform", "connection": "close"}
    delimited: bool = False
    server_header: str | None = "headwater"

    def run(self, talk: Conversation) -> None:
        head = talk.head()
        kind = head.headers.get("content-type", "").partition(";")[0]
        if head.status != 200 or kind != "text/event-stream":
            raise Surprise(f"no stream: {head}")
        coding = None if self.delimited else "chunked"
        framing = {"transfer-encoding": coding, "content-length": None, "server": self.server_header}
        for name, value in {**self.headers, **framing}.items():
            if (got := head.headers.get(name)) != value:
                raise Surprise(f"header {name}: {got!r}, not {value!r}")
        talk.chunked = None if self.delimited else ChunkedDecoder()
        opening = _next_block(talk)
        if not opening.is_opening or not opening.id:
            raise Surprise(f"no opening: {opening}")


@dataclass(frozen=True)
class Events:
    """That many events of the stream, each with this data, nothing else between them."""

    data: bytes
    count: int = 1

    def run(self, talk: Conversation) -> None:
        for number in range(self.count):
            block = _next_block(talk)
            if block.data != self.data.decode():
                raise Surprise(f"event {number}: {(block.data or '')[:80]!r} instead of {self.data[:80]!r}")


def _next_block(talk: Conversation) -> StreamEvent:
    deadline = time.monotonic() + PATIENCE
    talk.parse_stream()
    while not talk.blocks:
        if not talk.receive(deadline):
            raise Surprise(f"{talk.ended or 'silence'} instead of an event")
        talk.parse_stream()
    return talk.blocks.pop(0)


@dataclass(frozen=True)
class Repeat:
    """The same request many times on this connection, pipelined in batches, each answered with ``status``.

    :param last_closes: the last answer says ``Connection: close``, and no other does.
    """

    octets: bytes
    count: int
    status: int = 200
    last_closes: bool = False
    batch: ClassVar[int] = 25

    def run(self, talk: Conversation) -> None:
        done = 0
        while done < self.count:
            batch = min(self.batch, self.count - done)
            talk.sock.sendall(self.octets * batch)
            for _ in range(batch):
                done += 1
                head = talk.head()
                talk.body(head)
                closes = head.headers.get("connection", "").lower() == "close"
                if head.status != self.status or closes != (self.last_closes and done == self.count):
                    raise Surprise(f"answer {done} of {self.count}: {head}")


@dataclass(frozen=True)
class Healthy:
    """The server answers a probe on a connection of its own."""

    def run(self, talk: Conversation) -> None:
        answer = talk.server.request("GET", "/healthz", timeout=PATIENCE)
        if answer.status != 200:
            raise Surprise(f"/healthz: {answer.status} {answer.body!r}")
