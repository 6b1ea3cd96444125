"""gunicorn's reader of a connection, with a deadline for each read and a limit on the header."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http.unreader import SocketUnreader
from werkzeug.exceptions import ClientDisconnected, RequestTimeout

if TYPE_CHECKING:
    from .deadlines import Deadlines

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class HeaderTimeout(Exception):
    """The request's header did not arrive in time. The worker closes the connection without an answer, as Go does."""


class Reader(SocketUnreader):
    """Reads for the parser. Each read ends by the deadline of the header or body that it reads."""

    def __init__(self, sock: Any, deadlines: Deadlines) -> None:
        super().__init__(sock)
        self._deadlines = deadlines

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes. Raises HeaderTimeout, LimitRequestHeaders (431); in the body RequestTimeout (408)."""
        deadlines = self._deadlines
        if deadlines.reading_body:
            return self._body_chunk(size_hint)
        self.sock.settimeout(deadlines.header_time_left())
        try:
            data: bytes = self.sock.recv(min(deadlines.header_room(), self.mxchunk))
        except TimeoutError:
            raise HeaderTimeout from None
        deadlines.took_header_bytes(len(data))
        return data

    def hold(self, data: bytes) -> None:
        """Replace the read-ahead buffer."""
        self.buf = BytesIO(data)

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes of a body; fewer if the peer ends earlier. Raises RequestTimeout (408)."""
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
        deadlines = self._deadlines
        self.sock.settimeout(deadlines.body_time_left())
        try:
            if deadlines.expects_continue:
                # Only a view that reads the body asks for it (RFC 9110 §10.1.1); a refusal saves both sides the bytes.
                deadlines.expects_continue = False
                self.sock.sendall(CONTINUE)
            data: bytes = super().chunk(size_hint)
        except TimeoutError:
            deadlines.broken = "read-timeout"
            raise RequestTimeout("the request's body did not arrive in time (SSE_READ_TIMEOUT)") from None
        except OSError:
            deadlines.broken = "client"
            raise ClientDisconnected from None
        return data
