"""Requests of one connection whose head repeats: answered again without parser, environ and app.

Theory of operation. The app may offer a function that answers a request with the same head (``environ["sse.repeat"]``,
:mod:`sse.observe.environ`), and this module keeps it with the head. A later request gets its answer from that function
if its head is the same, byte for byte, but for the digits of its Content-Length, and if it arrived whole and alone. The
function itself looks at whatever else may have changed. Anything else goes to the parser and the app.

Only a head that :mod:`sse.worker.head_memory` knows is kept. So it was parsed and checked before, its Content-Length
occurs once, and no hook of gunicorn's configuration takes part in requests. A head may hold credentials: it is kept no
longer than there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

from ..web.fast_path import OFFERING
from .head_memory import MAX_HEAD_BYTES
from .response import http_date_of

if TYPE_CHECKING:
    from .response import Response

# Returns the answer's body, or None if the app must answer. See ``environ["sse.repeat"]``.
Again = Callable[[bytes], bytes | None]

# Heads kept for one connection, at most.
MAX_REPEATS: Final = 8

_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,10})\r\n")
_END: Final = b"\r\n\r\n"

class RepeatFailed(Exception):
    """The app's function failed; the app must answer with this error."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Whole(NamedTuple):
    """A request that was read as a whole: its head without the digits of its length, and its body."""

    key: bytes
    body: bytes


class Repeat(NamedTuple):
    """How to answer a head again.

    again: the app's function. first, rest: what the answer's own head has before its date, and after its request id.
    """

    again: Again
    method: str
    target: str
    peer: str
    status: str
    first: str
    rest: str

    def head(self, request_id: str, length: int, close: bool) -> bytes:
        """Make the answer's head, for a body of ``length`` bytes. close: it is the connection's last answer."""
        date = http_date_of(int(time.time()))
        connection = "close" if close else "keep-alive"
        lines = f"{self.first}{date}\r\nConnection: {connection}\r\nX-Request-ID: {request_id}\r\n{self.rest}"
        return f"{lines}Content-Length: {length}\r\n\r\n".encode("latin-1")


def repeat_of(again: Again, response: Response, target: str, peer: str) -> Repeat | None:
    """Return how to answer again what ``response`` has answered; None for an answer of another kind.

    target, peer: what the access log names.
    """
    names = [name.lower() for name, _ in response.headers]
    if response.req.version != (1, 1) or response.chunked or not response.request_id or "content-length" not in names:
        return None
    first = "".join(response.default_headers()[:2]) + "Date: "
    rest = "".join(f"{name}: {value}\r\n" for name, value in response.headers if name.lower() != "content-length")
    return Repeat(again, response.req.method, target, peer, str(response.status), first, rest)


def whole(data: bytes) -> Whole | None:
    """Split what was read if it is exactly one request with a Content-Length; otherwise return None."""
    end = data.find(_END, 0, MAX_HEAD_BYTES)
    if end < 0:
        return None
    found = _LENGTH.search(data, 0, end + 2)
    if found is None:
        return None
    first, last = found.span(1)
    body = data[end + 4 :]
    if len(body) != int(data[first:last]):
        return None
    # As many NULs as digits, so that a longer number bypasses no limit. No valid head has a NUL.
    return Whole(b"%b%b%b" % (data[:first], bytes(last - first), data[last:end]), body)


def only_ours(frame: FrameType | None, caller: CodeType) -> bool:
    """Return whether only our own code stands between a frame and its caller, the worker."""
    while frame is not None and frame.f_code in OFFERING:
        frame = frame.f_back
    return frame is not None and frame.f_code is caller
