"""Request heads that were parsed before, and need not be parsed again.

Theory of operation. A publisher that keeps its connection sends the same head with each event; parsing it, and making
the environ of it, was a third of what a publish cost. There is no second parser here: what gunicorn's own has made of a
head, and :func:`sse.worker.body.check` has let pass, is kept, and copied when the very same bytes come again
under the same *conditions*. Those are everything else that the result depends on: the configuration (one
:class:`Heads` for a worker), the listener, and whether the peer is trusted to say what its proxy saw.

The values of four fields may differ, the *holes*: they are of no consequence to how anything is read, but that a
Content-Length is a number. What stands in a hole is as long as what stood there (no limit on a size is passed by), is
of characters that the parser takes as they are, after exactly one blank; and its field is there once.

    POST /events/a HTTP/1.1␍␊Host: b␍␊Content-Length: ␀␀␀␍␊Idempotency-Key: ␀␀␀␀␀␀␀␍␊␍␊

No request has a NUL in its head, so what is cut in this way is nobody's head. Whatever is out of the ordinary (a head
that comes in pieces, another method, ``Expect``, a transfer coding, an upgrade) is never kept and goes to the parser.

Heads hold credentials, and are their sender's choice (threat: a dump of the memory, or its exhaustion). So one is kept
only when it comes a second time, and for at most two :data:`TURN` after its last use, and number and bytes are bounded.
Whether a token is still good is asked for each request; here nobody knows what a token is.
"""

from __future__ import annotations

import re
import time
from io import RawIOBase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gunicorn.config import PreRequest
from gunicorn.http import wsgi
from gunicorn.http.body import LengthReader

from .response import Request, Response, is_trusted_proxy

if TYPE_CHECKING:
    from .connection import Connection
    from .response import Reader

# Of one head: a browser's with its cookies, or one with a large token, fits.
MAX_HEAD_BYTES: Final = 4096

# Of one generation, of which there are two. What was parsed takes some 4 KB more for each.
MAX_HEADS: Final = 512
MAX_BYTES: Final = 256 * 1024

# Seconds of a generation.
TURN: Final = 30.0

# Heads that came once, by their hashes.
MAX_SEEN: Final = 4096

_METHODS: Final = frozenset({"GET", "HEAD", "POST"})

# Fields by which a request may become something else than it looks.
_NEVER: Final = frozenset({"EXPECT", "HTTP2-SETTINGS", "TE", "TRAILER", "TRANSFER-ENCODING", "UPGRADE"})

# A field begins after a CRLF and ends before one. A spelling that is not foreseen is part of what is compared.
_HOLES: Final = re.compile(
    rb"(\r\n(?:[Cc]ontent-[Ll]ength|[Ii]dempotency-[Kk]ey|[Tt]raceparent|[Xx]-[Rr]equest-I[Dd]): )"
    rb"([!-~]{1,255})(?=\r\n)"
)
_HOLE_NAMES: Final = frozenset({"CONTENT-LENGTH", "IDEMPOTENCY-KEY", "TRACEPARENT", "X-REQUEST-ID"})

# Digits of a Content-Length, ten gigabytes.
MAX_LENGTH_DIGITS: Final = 10


# Every attribute that gunicorn gives a request, and every key of its environ beside the fields: those that are the same
# for each request with the same head under the same conditions, and those that each request has of its own. A head with
# anything else in it, as a later gunicorn may put there, is not kept: nobody has looked whether clients may share that.
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
    """What is to be looked up, or learnt: a head under its conditions, without what stands in its holes."""

    key: tuple[Any, bytes]
    values: list[bytes]
    end: int  # of the head, in the bytes that were read


class Head:
    """What was made of a head: a request, and its environ once there is one."""

    __slots__ = ("_environ", "_holes", "_length", "_length_hole", "_request", "size")

    def __init__(self, request: Request, holes: list[int], length_hole: int | None, size: int) -> None:
        self.size = size
        self._length: int = request.body.reader.length
        self._length_hole = length_hole
        # For each hole, where its field is among the request's.
        self._holes = holes
        self._request = {name: value for name, value in vars(request).items() if name in _SHARED}
        self._request["headers"] = tuple(request.headers)
        self._environ: dict[str, Any] | None = None

    def request(self, values: list[bytes], reader: Reader, peer: Any, number: int) -> tuple[Request, int] | None:
        """The request with these values in its holes, as the parser would have made it, but for its body; and how long
        that is. None if it has to say."""
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

    def keep(self, environ: dict[str, Any], cfg: Any) -> None:
        """Learn what gunicorn made of a request with this head, if all of it is known. To be called before the app has
        it."""
        fields = {_environ_name(name) for name, _ in self._request["headers"]}
        if environ.keys() <= _SHARED_ENVIRON | _OWN_ENVIRON | fields:
            self._environ = {name: value for name, value in environ.items() if name not in _OWN_ENVIRON}
            self._environ["wsgi.errors"] = Errors(cfg)

    def environ(self, request: Request, sock: Any, peer: Any, response: Response) -> dict[str, Any] | None:
        """The environ of a request with this head, as ``gunicorn.http.wsgi.create`` makes it; None if that has to."""
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
    request: Request, connection: Connection, listener: Any, cfg: Any
) -> tuple[Response, dict[str, Any]]:
    """As ``gunicorn.http.wsgi.create``: the response, yet to be begun, and the environ. The latter is a copy where the
    head is known."""
    sock, peer, head = connection.sock, connection.addr, request.head
    if head is not None:
        response = Response(request, sock, cfg, connection)
        environ = head.environ(request, sock, peer, response)
        if environ is not None:
            return response, environ
    response, environ = wsgi.create(
        request, sock, peer, listener, cfg, response_class=Response, response_args=(connection,)
    )
    if head is not None:
        head.keep(environ, cfg)
    return response, environ


class Errors(RawIOBase):
    """``wsgi.errors``: gunicorn's, made when something is written (it looks for the log's streams, each time). One for
    all requests with a head; so nobody can close it."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def write(self, data: Any) -> None:
        """Write text."""
        wsgi.WSGIErrorsWrapper(self._cfg).write(data)

    def close(self) -> None:
        """Nothing: it is not the app's to close (PEP 3333)."""


class Heads:
    """A worker's memory of heads. ``cfg``: gunicorn's configuration, which it holds for."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._young: dict[tuple[Any, bytes], Head] = {}
        self._old: dict[tuple[Any, bytes], Head] = {}
        self._bytes = 0
        self._turned = time.monotonic()
        self._seen: set[int] = set()
        # PROXY protocol puts bytes in front of a connection's first head; a hook may change a request before its
        # environ is made; and a hole's value might decide upon the scheme.
        self._off = (
            cfg.protocol != "http"
            or cfg.proxy_protocol != "off"
            or cfg.pre_request is not PreRequest.default
            or not _HOLE_NAMES.isdisjoint(cfg.secure_scheme_headers)
        )

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def conditions(self, listener: Any, peer: Any) -> Any:
        """What a head is read under on a connection, from ``peer`` to the address ``listener``; None: nothing is kept
        (Unix sockets, where peers have no address)."""
        if self._off or not isinstance(listener, tuple) or not isinstance(peer, tuple):
            return None
        return listener, is_trusted_proxy(self._cfg, peer[0])

    def look(self, conditions: Any, data: bytes) -> Seen | None:
        """What ``data``, the first bytes of a request, begin with; None if that is neither known nor learnt."""
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
        """The request of a known head, the connection's ``number``-th, and the length of the body that it has yet to
        be given; None for one that the parser has to read."""
        key, values, _ = seen
        head = self._young.get(key)
        if head is None:
            head = self._old.pop(key, None)
            if head is None:
                return None
            self._put(key, head)
        return head.request(values, reader, peer, number)

    def learn(self, seen: Seen, data: bytes, request: Request) -> None:
        """Keep what the parser made of ``data``, if it is one of those that are kept."""
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

    def _put(self, key: tuple[Any, bytes], head: Head) -> None:
        if len(self._young) >= MAX_HEADS or self._bytes + head.size > MAX_BYTES:
            self._turn()
        self._young[key] = head
        self._bytes += head.size

    def _turn(self) -> None:
        self._old, self._young = self._young, {}
        self._bytes = 0
        self._turned = time.monotonic()

    def forget(self) -> None:
        """Let go of what nobody has used for long. To be called about once a second."""
        if time.monotonic() - self._turned >= TURN:
            self._turn()
            self._seen.clear()


def _head_of(head: bytes, request: Request) -> Head | None:
    """What is kept of a request that the parser has read in these bytes; None if it is not of the kind that is."""
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
    return Head(request, holes, length_hole, len(head))


def _environ_name(name: str) -> str:
    """By what name the environ has a field."""
    return "CONTENT_LENGTH" if name == "CONTENT-LENGTH" else "HTTP_" + name.replace("-", "_")
