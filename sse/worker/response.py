"""gunicorn's HTTP/1 response, with our headers and write time-out.

It also honours a view's ``Connection: close``, which gunicorn drops, and sends the head and the first bytes of the body
in one write.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http.wsgi import Response as GunicornResponse
from gunicorn.util import http_date
from werkzeug.wrappers import Response as AnyResponse
from werkzeug.wsgi import ClosingIterator

from ..events.chunked import LAST_CHUNK, encode_chunk
from ..fanout import epoll

if TYPE_CHECKING:
    from ..streams.hub import Hub
    from ..streams.stream import Stream
    from .deadlines import Deadlines


@lru_cache(maxsize=2)
def http_date_of(second: int) -> str:
    """Return the ``Date`` of a Unix second, which is formatted once."""
    date: str = http_date(second)
    return date


# Headers of earlier answers, which gunicorn's two patterns need not check again: the header as it is sent, the length
# that it states, whether it begins an event stream. Only these names, because their values hold no secrets.
_COMMON: Final = frozenset({"cache-control", "content-length", "content-type", "vary", "x-accel-buffering"})
_KNOWN: dict[tuple[str, str], tuple[tuple[str, str], int | None, bool]] = {}
MAX_KNOWN: Final = 512

# Content headers that leave an event stream's bytes as its generator yields them.
_CONTENT: Final = frozenset(
    {
        "content-disposition",
        "content-language",
        "content-security-policy",
        "content-security-policy-report-only",
        "content-type",
    }
)
# Werkzeug's own code around a response's body, which passes each item of bytes on unchanged.
_PASS_ON: Final = frozenset({ClosingIterator.__next__.__code__, AnyResponse(()).iter_encoded().gi_code})  # type: ignore[attr-defined]


class Response(GunicornResponse):
    """One response on one connection.

    hand_over: gives the connection to the fan-out; nothing may be written here afterwards.
    """

    def __init__(
        self, req: Any, sock: Any, cfg: Any, deadlines: Deadlines, hand_over: Callable[[Hub, Stream], None]
    ) -> None:
        super().__init__(req, sock, cfg)
        self._deadlines = deadlines
        self._hand_over = hand_over
        self.headers_sent = False
        self._head = b""
        self._deadline = 0.0
        self.event_stream = False
        self._gzip = False  # we have declared it to be gzip
        # For a header and the log line; empty if the answer has no such header, or the app's own.
        self.request_id = ""
        self._prepared = False
        self.again: Callable[[bytes], bytes | None] | None = None

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Do as gunicorn does, and close the connection after a view's ``Connection: close`` and after an event stream,
        whose end leaves the connection unusable."""
        for pair in headers:
            known = _KNOWN.get(pair) if type(pair) is tuple else None
            if known is None:
                self._process(*pair)
                continue
            header, length, event_stream = known
            self.headers.append(header)
            if length is not None:
                self.response_length = length
            if event_stream:
                self.event_stream = True
                self.force_close()

    def _process(self, name: str, value: str) -> None:
        super().process_headers([(name, value)])
        lowered = name.lower()
        if lowered == "connection" and "close" in value.lower():
            self.force_close()
        elif lowered == "x-request-id":
            self.request_id = ""  # the app sets its own
        elif lowered in _COMMON:
            event_stream = lowered == "content-type" and value.startswith("text/event-stream")
            if event_stream:
                self.event_stream = True
                self.force_close()
            if len(_KNOWN) >= MAX_KNOWN:
                _KNOWN.clear()
            length = self.response_length if lowered == "content-length" else None
            _KNOWN[name, value] = self.headers[-1], length, event_stream

    def write_all(self, body: Iterable[bytes]) -> None:
        """Write each item of the app's body when the app yields it."""
        for item in body:
            self.write(item)

    def take_over(self, hub: Hub, stream: Stream, written: int) -> bool:
        """``environ["sse.takeover"]``: hand the connection to the fan-out.

        A stream's generator calls it once its first item, of ``written`` bytes, was sent, and then returns. Returns
        False if the app has changed the response, so that the fan-out would send other bytes than the response does:
        the generator must then serve the stream itself.
        """
        if not self._is_untouched(stream.chunked, written):
            return False
        self._hand_over(hub, stream)
        return True

    def may_gzip(self) -> Callable[[], None] | None:
        """``environ["sse.gzip"]``: return a function that declares the response to be gzip; None if it cannot be.

        A stream's generator calls it before its first item, and must then hand the connection over: only the fan-out
        can compress.
        """
        if self.headers_sent or not self._is_untouched(True, 0):
            return None
        return self._declare_gzip

    def _declare_gzip(self) -> None:
        self.headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
        self._gzip = True

    def _is_untouched(self, chunked: bool, written: int) -> bool:
        """Return whether this is a plain event stream whose body the server itself iterates.

        Called by what a stream's generator calls.
        """
        names = {name.lower() for name, _ in self.headers}
        if self._gzip:
            names.remove("content-encoding")
        if not (
            self.event_stream
            and self.status_code == 200
            and self.chunked == chunked
            and self.sent == written
            and all(name in _CONTENT for name in names if name.startswith("content-"))
            and "trailer" not in names
        ):
            return False
        # A wrapper of the body (a middleware that compresses or counts) has a frame between the generator's and ours.
        frame = sys._getframe(2).f_back
        while frame is not None and frame.f_code in _PASS_ON:
            frame = frame.f_back
        return frame is not None and frame.f_code is Response.write_all.__code__

    def default_headers(self) -> list[str]:
        """Return gunicorn's headers, with our ``Server`` and ``X-Request-ID``, and a date formatted once a second."""
        if self._deadlines.must_close():
            self.force_close()
        if self.upgrade:
            connection = "upgrade"
        else:
            connection = "close" if self.should_close() else "keep-alive"
        major, minor = self.req.version
        server = self._deadlines.server_header
        return [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Server: {server}\r\n" if server else "",
            f"Date: {http_date_of(int(time.time()))}\r\n",
            f"Connection: {connection}\r\n",
            "Transfer-Encoding: chunked\r\n" if self.chunked else "",
            f"X-Request-ID: {self.request_id}\r\n" if self.request_id else "",
        ]

    def send_headers(self) -> None:
        """Make the head. It is sent with the first bytes of the body, in one write."""
        if not self.headers_sent:
            lines = self.default_headers()
            lines += [f"{name}: {value}\r\n" for name, value in self.headers]
            self._head = "".join(lines).encode("latin-1") + b"\r\n"
            self.headers_sent = True

    def can_sendfile(self) -> bool:
        """Return False: ``sendfile`` would bypass the head that is held back, and the write time-out."""
        return False

    def _emit_body(self, data: bytes) -> None:
        self._send(encode_chunk(data) if self.chunked else data)

    def close(self) -> None:
        """End the response: send the terminating chunk, and the head if there was no body."""
        self.send_headers()
        if self.chunked:
            self._send(LAST_CHUNK)
        elif self._head:
            self._send(b"")

    def _send(self, data: bytes) -> None:
        """Write within the write time-out. It covers an ordinary response as a whole, from its first byte on, and each
        write of an event stream, whose duration has no bound. Raises TimeoutError, OSError."""
        if self._head:
            data, self._head = self._head + data, b""
        elif self.event_stream and not self._prepared:
            # A stream that was not taken over after its first write. Set the same limits on what a slow or vanished
            # peer costs as :meth:`sse.fanout.sockets.Sockets.add`.
            self._prepared = True
            epoll.prepare(self.sock.fileno(), self._deadlines.write_timeout * epoll.USER_TIMEOUT_FACTOR)
        limit = self._deadlines.write_timeout
        if limit:
            now = time.monotonic()
            if not self._deadline or self.event_stream:
                self._deadline = now + limit
            self.sock.settimeout(max(self._deadline - now, 0.001))
        else:
            self.sock.settimeout(None)
        sent: int = self.sock.send(data)  # nearly always sends all; sendall costs more
        if sent < len(data):
            if limit:
                self.sock.settimeout(max(self._deadline - time.monotonic(), 0.001))
            self.sock.sendall(data[sent:])
