"""An SSE client on a raw socket, which sees what libraries hide: framing, cuts, resets."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, Self

from tests.support.sse_parser import BrokenFraming, ChunkedDecoder, EventParser, StreamEvent

_MAX_HEAD = 65536


class Ending(Enum):
    """How a stream ended, as far as its client can tell."""

    OPEN = "open"
    TERMINATED = "terminated"  # chunked: the terminating chunk was read
    CLOSED = "closed"  # close-delimited: a FIN, its only kind of end
    COMPLETE = "complete"  # Content-Length reached
    CUT = "cut"  # chunked or Content-Length: a FIN before the end
    RESET = "reset"  # RST

    @property
    def clean(self) -> bool:
        """The server meant to end it here."""
        return self in (Ending.TERMINATED, Ending.CLOSED, Ending.COMPLETE)


class StreamEnded(Exception):
    """There is nothing more to read; ``ending`` says how it ended."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(f"the stream has ended: {ending.value}")
        self.ending = ending


class SSEClient:
    """One request and the stream that answers it; the constructor returns after reading the answer's head.

    port: on ``host``, which may be the path of a Unix socket.
    target: the request target, ``/events/news?since=earliest``.
    last_event_id: sent as ``Last-Event-ID`` unless None.
    headers: further request headers; ``Host`` and ``Accept`` have defaults that these replace.
    version: ``"1.1"`` or ``"1.0"``.
    timeout: seconds for connecting and for the head.
    receive_buffer: SO_RCVBUF in bytes, for slow clients; set before connecting.
    Raises OSError, TimeoutError, StreamEnded or BrokenFraming: no answer, or one that breaks the rules.
    """

    def __init__(
        self,
        port: int,
        target: str,
        *,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: str = "",
        version: str = "1.1",
        timeout: float = 5.0,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
    ) -> None:
        self.ending = Ending.OPEN
        self._parser = EventParser()
        self._chunked: ChunkedDecoder | None = None
        self._gunzip: Any = None
        self._length: int | None = None
        self._ready: deque[StreamEvent] = deque()
        self.body = bytearray()  # decoded, from the first byte on
        self.wire_bytes = 0  # of the body as it came, without chunked coding
        unix = host.startswith("/")
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self._poll = select.poll()  # not select(): tests open more than 1,024 sockets
        self._poll.register(self.socket, select.POLLIN)
        try:
            if receive_buffer is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(timeout)
            self.socket.connect(host if unix else (host, port))
            fields = {"Host": f"localhost:{port}" if unix else f"{host}:{port}", "Accept": "text/event-stream"} | dict(headers or {})
            if last_event_id is not None:
                fields["Last-Event-ID"] = last_event_id
            if body:
                fields["Content-Length"] = str(len(body.encode()))
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            self.socket.sendall(f"{method} {target} HTTP/{version}\r\n{lines}\r\n".encode("latin-1") + body.encode())
            rest = self._read_head(time.monotonic() + timeout)
            self._choose_framing(method)
            self._decode(rest)
        except BaseException:
            self.socket.close()
            raise

    # ── the answer's head ──────────────────────────────────────────────────────────────────────────────────

    def _read_head(self, deadline: float) -> bytes:
        octets = b""
        while b"\r\n\r\n" not in octets:
            piece = self._receive(deadline)
            if not piece:
                raise StreamEnded(self.ending)
            octets += piece
            if len(octets) > _MAX_HEAD and b"\r\n\r\n" not in octets:  # a long replay may arrive with it
                raise BrokenFraming("an answer's head without an end")
        head, _, rest = octets.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        self.version, status, *_ = status_line.split(" ", 2)
        self.status = int(status)
        #: as received, in order, names in lower case
        self.raw_headers: list[tuple[str, str]] = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip() or "\n" in line or "\r" in line:
                raise BrokenFraming(f"bad header line {line!r}")
            self.raw_headers.append((name.lower(), value.strip(" \t")))
        self.headers = dict(self.raw_headers)
        return rest

    def _choose_framing(self, method: str) -> None:
        """RFC 9112 §6.3."""
        if method == "HEAD" or self.status in (204, 304):
            self._length = 0
        elif self.headers.get("transfer-encoding", "").lower() == "chunked":
            if "content-length" in self.headers or self.version == "HTTP/1.0":
                raise BrokenFraming("chunked beside a Content-Length, or to HTTP/1.0")
            self._chunked = ChunkedDecoder()
        elif "content-length" in self.headers:
            self._length = int(self.headers["content-length"])
        if self._length == 0:
            self.ending = Ending.COMPLETE
        if self.headers.get("content-encoding") == "gzip":
            self._gunzip = zlib.decompressobj(wbits=31)

    # ── the body ───────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, deadline: float) -> bytes:
        """Return bytes, or nothing at the end; ``ending`` then says what the FIN or RST means."""
        milliseconds = max(deadline - time.monotonic(), 0) * 1000
        if not self._poll.poll(milliseconds):
            raise TimeoutError("no bytes before the deadline")
        try:
            piece = self.socket.recv(262144)
        except ConnectionError:
            self.ending = Ending.RESET
            return b""
        if not piece and self.ending is Ending.OPEN:
            framed = self._chunked is not None or self._length is not None or not hasattr(self, "headers")
            self.ending = Ending.CUT if framed else Ending.CLOSED
        return piece

    def _decode(self, octets: bytes) -> None:
        if self._chunked:
            octets = self._chunked.feed(octets)
            if self._chunked.terminated:
                self.ending = Ending.TERMINATED
        self.wire_bytes += len(octets)
        if self._gunzip is not None:
            octets = self._gunzip.decompress(octets)  # at the end it checks CRC and length
            if self._gunzip.unused_data or self._gunzip.eof != self.terminated:
                raise BrokenFraming("the end of the gzip stream is not the end of the body")
        self.body += octets
        if self._length is not None and len(self.body) >= self._length:
            if len(self.body) > self._length:
                raise BrokenFraming(f"{len(self.body) - self._length} bytes after the end of the body")
            self.ending = Ending.COMPLETE
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            self._ready.extend(self._parser.feed(octets))

    def _pump(self, deadline: float) -> None:
        if self.ending is not Ending.OPEN:
            raise StreamEnded(self.ending)
        if piece := self._receive(deadline):
            self._decode(piece)

    @property
    def terminated(self) -> bool:
        """Return whether the terminating chunk was read."""
        return self.ending is Ending.TERMINATED

    @property
    def last_event_id(self) -> str:
        """Return what a browser would send when it reconnects; empty for nothing."""
        return self._parser.last_event_id

    @property
    def comments(self) -> int:
        """Return the comment lines seen."""
        return self._parser.comments

    @property
    def partial(self) -> bool:
        """Return whether a block or a chunk has begun and not ended."""
        return self._parser.partial or (self._chunked is not None and not self._chunked.between_chunks)

    @property
    def chunks(self) -> int:
        """Return the number of data chunks begun so far."""
        return self._chunked.chunks if self._chunked else 0

    def next_event(self, timeout: float = 5.0) -> StreamEvent:
        """Return the next block, openings and heartbeats included.

        Raises TimeoutError: none within ``timeout`` seconds.
        Raises StreamEnded: there is none left, and the stream has ended.
        """
        deadline = time.monotonic() + timeout
        while not self._ready:
            self._pump(deadline)
        return self._ready.popleft()

    def next_message(self, timeout: float = 5.0) -> StreamEvent:
        """Return the next block that a publisher caused: no opening, heartbeat, reset. Errors: as next_event."""
        deadline = time.monotonic() + timeout
        while (event := self.next_event(deadline - time.monotonic())).is_control:
            pass
        return event

    def events_until(self, predicate: Callable[[StreamEvent], bool], deadline: float = 5.0) -> list[StreamEvent]:
        """Return all blocks up to and including the first for which ``predicate`` is true.

        deadline: seconds from now.
        Raises AssertionError if the time is up or the stream ends; the message lists what arrived.
        """
        end = time.monotonic() + deadline
        seen: list[StreamEvent] = []
        try:
            while not seen or not predicate(seen[-1]):
                seen.append(self.next_event(end - time.monotonic()))
        except (TimeoutError, StreamEnded) as error:
            raise AssertionError(f"{error}; {len(seen)} blocks came, the last: {seen[-3:]}") from error
        return seen

    def read_to_end(self, deadline: float = 5.0) -> list[StreamEvent]:
        """Return all blocks until the stream's end, however it ends (``ending``).

        Raises TimeoutError: it has not ended ``deadline`` seconds from now.
        """
        end = time.monotonic() + deadline
        while self.ending is Ending.OPEN:
            self._pump(end)
        blocks = list(self._ready)
        self._ready.clear()
        return blocks

    def wait_closed(self, timeout: float = 5.0) -> Ending:
        """Read until the server closes the connection itself, and return ``ending``.

        Raises TimeoutError: it is still open.
        Raises BrokenFraming: bytes after the end.
        """
        deadline = time.monotonic() + timeout
        while piece := self._receive(deadline):
            self._decode(piece)
        return self.ending

    # ── going away ─────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Send FIN (the kernel makes it RST if unread bytes wait)."""
        self.socket.close()

    def abort(self) -> None:
        """Send RST at once, like a crashed process or a firewall."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        """Send FIN, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
