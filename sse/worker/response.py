"""gunicorn's HTTP/1 parser and response, with our deadlines and headers.

gunicorn parses and frames; what it leaves out is added at the two places where bytes pass: the reader, which knows
how long it may wait and how much a header may hold, and the response, which honours a view's
``Connection: close`` (gunicorn drops it) and sends the head together with the first bytes of the body.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http.message import Request as GunicornRequest
from gunicorn.http.message import _ip_in_allow_list
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import Response as GunicornResponse
from gunicorn.util import http_date
from werkzeug.exceptions import ClientDisconnected, RequestTimeout
from werkzeug.wrappers import Response as AnyResponse
from werkzeug.wsgi import ClosingIterator

from ..fanout import epoll as transport

if TYPE_CHECKING:
    from ..streams.hub import Hub
    from ..streams.stream import Stream
    from .connection import Connection
    from .head_memory import Head

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HeaderTimeout(Exception):
    """The request's header did not come in time; the connection is closed without an answer, as Go does."""


class Request(GunicornRequest):
    """gunicorn's, except that a peer's trust is worked out once and not for each of its requests (its address is parsed
    and looked for among networks: a sixth of what reading a small request costs)."""

    # What is remembered of its head (see :mod:`sse.worker.head_memory`).
    head: Head | None = None

    def _peer_is_trusted_proxy(self) -> bool:
        addr = self.peer_addr
        return not isinstance(addr, tuple) or is_trusted_proxy(self.cfg, addr[0])


class Remembered:
    """gunicorn's configuration for the path of a request: each name is looked up once. (``Config`` makes every
    attribute anew, and a request asks for some forty.) A reload makes new workers, and so a new one of these."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__[name] = getattr(self._cfg, name)
        return value


@lru_cache(maxsize=4096)
def is_trusted_proxy(cfg: Any, host: str) -> bool:
    """May a peer of this address say what its proxy saw?"""
    trusted: bool = _ip_in_allow_list(host, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks())
    return trusted


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    date: str = http_date(second)
    return date


# Headers of answers that were checked (gunicorn's two patterns for each) and understood before: as they are sent, the
# length that they state, whether they begin an event stream. None of these has secrets.
_COMMON: Final = frozenset({"cache-control", "content-length", "content-type", "vary", "x-accel-buffering"})
_KNOWN: dict[tuple[str, str], tuple[tuple[str, str], int | None, bool]] = {}
MAX_KNOWN: Final = 512

# Headers about the content with which an event stream's bytes are still those that its generator yields.
_CONTENT: Final = frozenset(
    {
        "content-disposition",
        "content-language",
        "content-security-policy",
        "content-security-policy-report-only",
        "content-type",
    }
)
# Werkzeug's own code around a response's body: passes each item of bytes on as it is.
_PASS_ON: Final = frozenset({ClosingIterator.__next__.__code__, AnyResponse(()).iter_encoded().gi_code})  # type: ignore[attr-defined]


class Reader(SocketUnreader):
    """Reads for the parser, each read bounded by the deadline of what is being read."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.sock)
        self._connection = connection

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes. Raises HeaderTimeout; RequestTimeout (408) in the body; LimitRequestHeaders (431)."""
        connection = self._connection
        if connection.reading_body:
            return self._body_chunk(size_hint)
        connection.sock.settimeout(connection.header_time_left())
        try:
            data: bytes = connection.sock.recv(min(connection.header_room(), self.mxchunk))
        except TimeoutError:
            raise HeaderTimeout from None
        connection.took_header_bytes(len(data))
        return data

    def hold(self, data: bytes) -> None:
        """Have these bytes as what was read ahead, in place of what was."""
        self.buf = BytesIO(data)

    def take(self, size: int) -> bytes:
        """The next so many bytes of a body; fewer if the peer ends before. Raises RequestTimeout (408)."""
        data = self.buf.getvalue()
        if len(data) < size:
            pieces, missing = [data], size - len(data)
            while missing > 0 and (piece := self.chunk(missing)):
                pieces.append(piece)
                missing -= len(piece)
            data = b"".join(pieces)
        self.buf = BytesIO(data[size:])
        return data[:size]

    def _body_chunk(self, size_hint: int | None) -> bytes:
        connection = self._connection
        connection.sock.settimeout(connection.body_time_left())
        try:
            if connection.expects_continue:
                # Only a view that wants the body asks for it (RFC 9110 §10.1.1): one that refuses saves both the bytes.
                connection.expects_continue = False
                connection.sock.sendall(CONTINUE)
            data: bytes = super().chunk(size_hint)
        except TimeoutError:
            connection.broken = "read-timeout"
            raise RequestTimeout("the request's body did not come in time (SSE_READ_TIMEOUT)") from None
        except OSError:
            connection.broken = "client"
            raise ClientDisconnected from None
        return data


class Response(GunicornResponse):
    """One response on one connection."""

    def __init__(self, req: Any, sock: Any, cfg: Any, connection: Connection) -> None:
        super().__init__(req, sock, cfg)
        self._connection = connection
        self.headers_sent = False
        self._head = b""
        self._deadline = 0.0
        self.event_stream = False
        # In the answer and in its log line; empty where an answer has none.
        self.request_id = ""
        self._prepared = False

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """As gunicorn's; and a view's ``Connection: close`` closes, and so does an event stream: after its end the
        connection cannot be used again."""
        for pair in headers:
            known = _KNOWN.get(pair) if type(pair) is tuple else None
            if known is None:
                self._process(*pair)
                continue
            kept, length, event_stream = known
            self.headers.append(kept)
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
            self.request_id = ""  # the app names its answers itself
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
        """Write the items of the app's body as they come."""
        for item in body:
            self.write(item)

    def take_over(self, hub: Hub, stream: Stream, written: int) -> bool:
        """``environ["sse.takeover"]``: hand the connection to the fan-out, once the stream's generator has returned.

        To be called by that generator after its first item of ``written`` bytes. False where the app has done
        something to the response, so that writing to the socket directly would send other bytes than the response
        does: then the generator must serve the stream itself.
        """
        if not self._is_untouched(stream, written):
            return False
        self._connection.take_over(hub, stream)
        return True

    def _is_untouched(self, stream: Stream, written: int) -> bool:
        """Is this a plain event stream, whose body the server itself iterates?"""
        names = {name.lower() for name, _ in self.headers}
        if not (
            self.event_stream
            and self.status_code == 200
            and self.chunked == stream.chunked
            and self.sent == written
            and all(name in _CONTENT for name in names if name.startswith("content-"))
            and "trailer" not in names
        ):
            return False
        # Whoever wraps the body (a middleware that compresses, or counts) stands between its generator and us.
        frame = sys._getframe(2).f_back
        while frame is not None and frame.f_code in _PASS_ON:
            frame = frame.f_back
        return frame is not None and frame.f_code is Response.write_all.__code__

    def default_headers(self) -> list[str]:
        """As gunicorn's, with our ``Server``, and the date made once a second."""
        if self._connection.must_close():
            self.force_close()
        if self.upgrade:
            connection = "upgrade"
        else:
            connection = "close" if self.should_close() else "keep-alive"
        major, minor = self.req.version
        server = self._connection.server_header
        return [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Server: {server}\r\n" if server else "",
            f"Date: {_date(int(time.time()))}\r\n",
            f"Connection: {connection}\r\n",
            "Transfer-Encoding: chunked\r\n" if self.chunked else "",
            f"X-Request-ID: {self.request_id}\r\n" if self.request_id else "",
        ]

    def send_headers(self) -> None:
        """Make the head; it leaves with the first bytes of the body, in one write."""
        if not self.headers_sent:
            lines = self.default_headers()
            lines += [f"{name}: {value}\r\n" for name, value in self.headers]
            self._head = "".join(lines).encode("latin-1") + b"\r\n"
            self.headers_sent = True

    def can_sendfile(self) -> bool:
        """Never: ``sendfile`` would pass by the head that is held back, and by the write time-out."""
        return False

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def close(self) -> None:
        """End the response: the terminating chunk, and the head if there was no body."""
        self.send_headers()
        if self.chunked:
            self._send(b"0\r\n\r\n")
        elif self._head:
            self._send(b"")

    def _send(self, data: bytes) -> None:
        """Write, within the write time-out: one for the whole of an ordinary response, from its first byte on; one for
        each write of an event stream, whose duration has no bound. Raises TimeoutError, OSError."""
        if self._head:
            data, self._head = self._head + data, b""
        elif self.event_stream and not self._prepared:
            # A stream that is not taken over after its first write. The same bounds on what a peer costs that reads
            # slowly, or that vanished, as :meth:`sse.fanout.passes.Fanout.adopt` sets.
            self._prepared = True
            transport.prepare(self.sock.fileno(), self._connection.write_timeout * transport.USER_TIMEOUT_FACTOR)
        limit = self._connection.write_timeout
        if limit:
            now = time.monotonic()
            if not self._deadline or self.event_stream:
                self._deadline = now + limit
            self.sock.settimeout(max(self._deadline - now, 0.001))
        else:
            self.sock.settimeout(None)
        sent: int = self.sock.send(data)  # nearly always all of it, without sendall's preparations
        if sent < len(data):
            if limit:
                self.sock.settimeout(max(self._deadline - time.monotonic(), 0.001))
            self.sock.sendall(data[sent:])

