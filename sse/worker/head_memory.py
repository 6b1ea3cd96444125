"""Remembers parsed request heads, so that the same bytes are not parsed again.

Theory of operation. A publisher that keeps its connection sends the same head with each event. To parse it and make its
environ was a third of the cost of a publish. This is no second parser: it remembers what gunicorn's parser made of a
head, once :func:`sse.worker.body.check` has accepted it, and copies that when the same bytes arrive again under the
same *conditions*. Those are all else that the result depends on: the configuration (each worker has one
:class:`HeadMemory`), the listener, and whether the peer is a trusted proxy.

The values of four fields, the *holes*, may differ: they do not affect how anything is read, except that a
Content-Length must be a number. A value in a hole is exactly as long as the first one (so it bypasses no size limit),
has only characters that the parser takes unchanged, and follows exactly one blank; its field occurs once.

    POST /events/a HTTP/1.1␍␊Host: b␍␊Content-Length: ␀␀␀␍␊Idempotency-Key: ␀␀␀␀␀␀␀␍␊␍␊

No valid head has a NUL, so a head whose holes are filled with NULs cannot be sent. Anything unusual (a head that
arrives in pieces, another method, ``Expect``, a transfer coding, an upgrade) always goes to the parser.

A head may hold credentials, and its sender chooses it (threats: a memory dump, exhausted memory). So a head is
remembered only from its second appearance, for at most two generations after its last use, and within a limit in bytes.
Nothing here knows what a token is: each request's token is checked as usual.
"""

from __future__ import annotations

import re
import time
from io import RawIOBase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gunicorn.config import PreRequest
from gunicorn.http import wsgi
from gunicorn.http.body import LengthReader

from .parser import Request, is_trusted_proxy
from .response import Response

if TYPE_CHECKING:
    from .reader import Reader

# Largest head that is remembered: a browser's with its cookies fits, or one with a large token.
MAX_HEAD_BYTES: Final = 4096

# Limits per generation; there are two generations. Each head takes about 4 KB more than its own bytes.
MAX_HEADS: Final = 512
MAX_BYTES: Final = 256 * 1024

# How long a generation lasts.
GENERATION_SECONDS: Final = 30.0

# Hashes of heads that have appeared once.
MAX_SEEN: Final = 4096

_METHODS: Final = frozenset({"GET", "HEAD", "POST"})

# A head with one of these fields is never remembered: they change how the request or its connection is read.
_NEVER: Final = frozenset({"EXPECT", "HTTP2-SETTINGS", "TE", "TRAILER", "TRANSFER-ENCODING", "UPGRADE"})

# A field begins after a CRLF and ends before one. In any other spelling, it is part of what is compared.
_HOLES: Final = re.compile(
    rb"(\r\n(?:[Cc]ontent-[Ll]ength|[Ii]dempotency-[Kk]ey|[Tt]raceparent|[Xx]-[Rr]equest-I[Dd]): )"
    rb"([!-~]{1,255})(?=\r\n)"
)
_HOLE_NAMES: Final = frozenset({"CONTENT-LENGTH", "IDEMPOTENCY-KEY", "TRACEPARENT", "X-REQUEST-ID"})

# Most digits of a Content-Length: ten gigabytes.
MAX_LENGTH_DIGITS: Final = 10


# All attributes of gunicorn's request, and all keys of its environ beside the fields. Requests with the same head under
# the same conditions share the first set; each request has its own of the second. A request with any other (a later
# gunicorn may add some) is not remembered: nobody has checked that clients may share it.
_SHARED: Final = frozenset(
    {
        *("cfg", "method", "uri", "path", "query", "fragment", "version", "headers", "scheme", "must_close"),
        *("limit_request_line", "limit_request_fields", "limit_request_field_size", "max_buffer_headers"),
        *("proxy_protocol_info", "_expected_100_continue", "_fast_limit_request_line", "_use_fast"),
    }
)
_OWN: Final = frozenset({"unreader", "peer_addr", "remote_addr", "req_number", "trailers", "body", "head"})
_SHARED_ENVIRON: Final = frozenset(
    {
        *("wsgi.version", "wsgi.url_scheme", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once"),
        *("wsgi.file_wrapper", "wsgi.input_terminated", "SERVER_SOFTWARE", "SERVER_NAME", "SERVER_PORT"),
        *("SERVER_PROTOCOL", "REQUEST_METHOD", "RAW_URI", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
        *("CONTENT_TYPE", "CONTENT_LENGTH"),
    }
)
_OWN_ENVIRON: Final = frozenset(
    {"wsgi.errors", "wsgi.input", "gunicorn.socket", "REMOTE_ADDR", "REMOTE_PORT", "wsgi.early_hints"}
)


class Seen(NamedTuple):
    """A head to look up or to learn.

    key     its conditions, and its bytes with NULs in the holes
    values  the values in the holes
    end     where the head ends in the bytes that were read
    """

    key: tuple[Any, bytes]
    values: list[bytes]
    end: int


class RememberedHead:
    """What gunicorn made of a head: a request, and later its environ."""

    __slots__ = ("_environ", "_holes", "_length", "_length_hole", "_request", "size")

    def __init__(self, request: Request, holes: list[int], length_hole: int | None, size: int) -> None:
        self.size = size
        self._length: int = request.body.reader.length
        self._length_hole = length_hole
        # The index of each hole's field in the request's headers.
        self._holes = holes
        self._request = {name: value for name, value in vars(request).items() if name in _SHARED}
        self._request["headers"] = tuple(request.headers)
        self._environ: dict[str, Any] | None = None

    def request(self, values: list[bytes], reader: Reader, peer: Any, number: int) -> tuple[Request, int] | None:
        """Make the request that the parser would make of these values in the holes, but without its body. Return it and
        the body's length in bytes. None: let the parser decide."""
        length = self._length
        if self._length_hole is not None:
            digits = values[self._length_hole]
            if not digits.isdigit():
                return None
            length = int(digits)
        request = Request.__new__(Request)
        attributes = request.__dict__ = self._request.copy()
        headers = attributes["headers"] = list(attributes["headers"])
        for place, value in zip(self._holes, values, strict=True):
            headers[place] = (headers[place][0], value.decode("ascii"))
        attributes["unreader"] = reader
        attributes["peer_addr"] = attributes["remote_addr"] = peer
        attributes["req_number"] = number
        attributes["trailers"] = []
        attributes["head"] = self
        return request, length

    def remember(self, environ: dict[str, Any], cfg: Any) -> None:
        """Remember the environ that gunicorn made of a request with this head, if all its keys are known. Call it
        before the app sees the environ."""
        fields = {_environ_name(name) for name, _ in self._request["headers"]}
        if environ.keys() <= _SHARED_ENVIRON | _OWN_ENVIRON | fields:
            self._environ = {name: value for name, value in environ.items() if name not in _OWN_ENVIRON}
            self._environ["wsgi.errors"] = Errors(cfg)

    def environ(self, request: Request, sock: Any, peer: Any, response: Response) -> dict[str, Any] | None:
        """Make a request's environ as ``gunicorn.http.wsgi.create`` does. None: call that."""
        if self._environ is None:
            return None
        environ = self._environ.copy()
        for place in self._holes:
            name, value = request.headers[place]
            environ[_environ_name(name)] = value
        environ["wsgi.input"] = request.body
        environ["gunicorn.socket"] = sock
        environ["REMOTE_ADDR"] = peer[0]
        environ["REMOTE_PORT"] = str(peer[1])
        environ["wsgi.early_hints"] = wsgi._make_early_hints_callback(request, sock, response)
        return environ


def create(
    request: Request, sock: Any, peer: Any, listener: Any, cfg: Any, response_args: tuple[Any, ...]
) -> tuple[Response, dict[str, Any]]:
    """Make the response object and the environ, as ``gunicorn.http.wsgi.create`` does; from a known head if possible.

    response_args: what :class:`Response` needs beyond gunicorn's arguments.
    """
    head = request.head
    if isinstance(head, RememberedHead):
        response = Response(request, sock, cfg, *response_args)
        environ = head.environ(request, sock, peer, response)
        if environ is not None:
            return response, environ
    response, environ = wsgi.create(
        request, sock, peer, listener, cfg, response_class=Response, response_args=response_args
    )
    if isinstance(head, RememberedHead):
        head.remember(environ, cfg)
    return response, environ


class Errors(RawIOBase):
    """``wsgi.errors``: creates gunicorn's only when something is written, because that searches for the log's streams
    each time. All requests with a head share it, so it cannot be closed."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def write(self, data: Any) -> None:
        """Write text."""
        wsgi.WSGIErrorsWrapper(self._cfg).write(data)

    def close(self) -> None:
        """Do nothing: the app may not close it (PEP 3333)."""


class HeadMemory:
    """One worker's remembered heads. ``cfg``: gunicorn's configuration."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._young: dict[tuple[Any, bytes], RememberedHead] = {}
        self._old: dict[tuple[Any, bytes], RememberedHead] = {}
        self._bytes = 0
        self._generation_began = time.monotonic()
        self._seen: set[int] = set()
        # Off if the PROXY protocol puts bytes before a connection's first head, if a hook may change a request before
        # its environ is made, or if a hole's value might decide the scheme.
        self._off = (
            cfg.protocol != "http"
            or cfg.proxy_protocol != "off"
            or cfg.pre_request is not PreRequest.default
            or not _HOLE_NAMES.isdisjoint(cfg.secure_scheme_headers)
        )

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def conditions(self, listener: Any, peer: Any) -> Any:
        """Return the conditions for heads from ``peer`` to the address ``listener``. None: remember nothing (Unix
        sockets, where peers have no address)."""
        if self._off or not isinstance(listener, tuple) or not isinstance(peer, tuple):
            return None
        return listener, is_trusted_proxy(self._cfg, peer[0])

    def look(self, conditions: Any, data: bytes) -> Seen | None:
        """Split the head from ``data``, a request's first bytes. None if it cannot be remembered."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if conditions is None or end < 0:
            return None
        head = data[: end + 4]
        if b"\0" in head:
            return None
        parts = _HOLES.split(head)
        values = parts[2::3]
        for place in range(2, len(parts), 3):
            parts[place] = bytes(len(parts[place]))
        return Seen((conditions, b"".join(parts)), values, end + 4)

    def request(self, seen: Seen, reader: Reader, peer: Any, number: int) -> tuple[Request, int] | None:
        """Make the connection's ``number``-th request from a known head. Return it, without its body, and the body's
        length in bytes. None: let the parser decide."""
        key, values, _ = seen
        head = self._young.get(key)
        if head is None:
            head = self._old.pop(key, None)
            if head is None:
                return None
            self._put(key, head)
        return head.request(values, reader, peer, number)

    def learn(self, seen: Seen, data: bytes, request: Request) -> None:
        """Remember what the parser made of ``data``, if its head has appeared before and is of a usual kind."""
        mark = hash(seen.key)
        if mark not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        head = _head_of(data[: seen.end], request)
        # The parser must have found the same end.
        if head is not None and request.unreader.buf.getvalue() == data[seen.end :]:
            request.head = head
            self._put(seen.key, head)

    def _put(self, key: tuple[Any, bytes], head: RememberedHead) -> None:
        if len(self._young) >= MAX_HEADS or self._bytes + head.size > MAX_BYTES:
            self._next_generation()
        self._young[key] = head
        self._bytes += head.size

    def _next_generation(self) -> None:
        self._old, self._young = self._young, {}
        self._bytes = 0
        self._generation_began = time.monotonic()

    def forget(self) -> bool:
        """Forget heads that were not used for a while, and return whether it was time to. Call it about once a
        second."""
        if time.monotonic() - self._generation_began < GENERATION_SECONDS:
            return False
        self._next_generation()
        self._seen.clear()
        return True


def _head_of(head: bytes, request: Request) -> RememberedHead | None:
    """Return what to remember of a request that the parser read from these bytes; None if its kind is unusual."""
    fields = [_environ_name(name) for name, _ in request.headers]
    if (
        request.method not in _METHODS
        or not vars(request).keys() <= _SHARED | _OWN
        or not _NEVER.isdisjoint(name for name, _ in request.headers)
        or not isinstance(request.body.reader, LengthReader)
    ):
        return None
    holes: list[int] = []
    length_hole = None
    parts = _HOLES.split(head)
    for number, (field, value) in enumerate(zip(parts[1::3], parts[2::3], strict=True)):
        name = field[2:-2].decode("ascii").upper()
        if fields.count(_environ_name(name)) != 1:
            return None
        place = fields.index(_environ_name(name))
        if request.headers[place] != (name, value.decode("ascii")):
            return None
        if name == "CONTENT-LENGTH":
            if len(value) > MAX_LENGTH_DIGITS:
                return None
            length_hole = number
        holes.append(place)
    return RememberedHead(request, holes, length_hole, len(head))


def _environ_name(name: str) -> str:
    """Return the environ's name for a field."""
    return "CONTENT_LENGTH" if name == "CONTENT-LENGTH" else "HTTP_" + name.replace("-", "_")
