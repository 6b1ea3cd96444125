"""Checks that gunicorn's parser lacks, and a body whose parse errors become 400s.

Each check rejects bytes that we and a proxy in front of us might read differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import Body as GunicornBody
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import InvalidHeader, NoMoreData, ParseException, UnsupportedTransferCoding
from werkzeug.exceptions import BadRequest

if TYPE_CHECKING:
    from .deadlines import Deadlines
    from .reader import Reader


def check(request: Any) -> None:
    """Refuse an ambiguous request, and honour ``Connection: close`` in a list, which gunicorn overlooks.

    Raises InvalidHeader (400), UnsupportedTransferCoding (501).
    """
    has_host = False
    for name, value in request.headers:
        if name == "HOST":
            has_host = True
        elif name == "CONNECTION":
            # A list of tokens, in any case (RFC 9110 §7.6.1); gunicorn compares the whole value.
            if any(token.strip().lower() == "close" for token in value.split(",")):
                request.force_close()
        elif name == "TRANSFER-ENCODING" and value.strip().lower() != "chunked":
            # gunicorn accepts "gzip, chunked" and passes compressed bytes to the app.
            raise UnsupportedTransferCoding(value)
    if not has_host and request.version >= (1, 1):
        # RFC 9112 §3.2: MUST be answered with 400.
        raise InvalidHeader("HOST", req=request)


class Body:
    """``wsgi.input``: wraps gunicorn's body. A parse error becomes a 400 instead of the app's 500, and the connection
    is not reused after it."""

    def __init__(self, body: Any, deadlines: Deadlines) -> None:
        self._body = body
        self._deadlines = deadlines

    @property
    def failed(self) -> bool:
        """True once the end of the body is lost, so the connection cannot be reused. Read by gunicorn's parser."""
        return bool(self._body.failed) or self._deadlines.broken is not None

    def is_read(self) -> bool:
        """True if the length is known and fully read. False proves nothing: a chunked body's end has yet to be read."""
        body = self._body
        return isinstance(body.reader, LengthReader) and body.reader.length == 0 == body.buf.tell() and not self.failed

    def _guarded(self, read: Any, *args: Any) -> Any:
        try:
            return read(*args)
        except NoMoreData:
            self._deadlines.broken = "bad-request"
            raise BadRequest("the body ended in the middle of a chunk") from None
        except ParseException as error:
            self._deadlines.broken = "bad-request"
            raise BadRequest(f"the body's chunks cannot be read: {error}") from None

    def read(self, size: int | None = None) -> bytes:
        data: bytes = self._guarded(self._body.read, size)
        return data

    def readline(self, size: int | None = None) -> bytes:
        line: bytes = self._guarded(self._body.readline, size)
        return line

    def readlines(self, size: int | None = None) -> list[bytes]:
        lines: list[bytes] = self._guarded(self._body.readlines, size)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line


class SizedBody(Body):
    """A body of known length. A read of the whole body, as views do, bypasses gunicorn's nested buffers; any other read
    goes through gunicorn's body."""

    def __init__(self, reader: Reader, length: int, deadlines: Deadlines) -> None:
        self._reader = reader
        self._left = length
        self._deadlines = deadlines

    @cached_property
    def _body(self) -> Any:
        return GunicornBody(LengthReader(self._reader, self._left))

    @property
    def failed(self) -> bool:
        return self._deadlines.broken is not None or ("_body" in self.__dict__ and super().failed)

    def is_read(self) -> bool:
        if "_body" in self.__dict__:
            return super().is_read()
        return self._left == 0 and self._deadlines.broken is None

    def read(self, size: int | None = None) -> bytes:
        left = self._left
        if "_body" in self.__dict__ or not (size is None or size < 0 or size >= left):
            return super().read(size)
        if left == 0:
            return b""
        self._left = 0
        return self._reader.take(left)
