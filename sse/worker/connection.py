"""One connection's life: Go's ``http.Server`` time-out split on gunicorn's parser.

Theory of operation. A connection is in one of these states (Go's ``ConnState``), and in each exactly one timer runs:

    new     accepted, no request yet      header timer, from the accept
    active  a request's header came       read timer until the body is read, then write timer until it is answered
    idle    between two requests          idle timer; the next request's first byte starts its header timer
    stream  taken over by the fan-out     write timer, while bytes are waiting
    closed

:data:`TIMERS` is that table; docs/go-to-gunicorn.md shows it to users and a test compares the two. A timer whose
setting is 0 does not run. Time-outs of a header or an idle connection close without an answer, because nobody has
asked anything yet; one in a body answers 408; one in writing can only close.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from greenlet import GreenletExit
from gunicorn.http import get_parser
from gunicorn.http.errors import LimitRequestHeaders, NoMoreData
from werkzeug.exceptions import HTTPException

from ..auth.redact import Redaction
from ..runtime.cooperation import breathe
from ..settings import Settings
from .body import Body, SizedBody, check
from .idle import IdleTimer
from .response import HeaderTimeout, Reader, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..streams.hub import Hub
    from ..streams.stream import Stream
    from .head_memory import Heads

# gunicorn quotes the line or field that it refused; a token may stand in it (threat: a URL with a blank in it).
logging.getLogger("gunicorn.error").addFilter(Redaction())


class Timer(NamedTuple):
    """One row of the table: what runs in a state, and what happens when it fires."""

    state: str
    go: str
    setting: str
    starts: str
    stops: str
    then: str


TIMERS: Final = (
    Timer("new", "ReadHeaderTimeout", "SSE_READ_HEADER_TIMEOUT", "accept", "header complete", "closed, no answer"),
    Timer(
        "idle → active",
        "ReadHeaderTimeout",
        "SSE_READ_HEADER_TIMEOUT",
        "first byte of the next request",
        "header complete",
        "closed, no answer",
    ),
    Timer("active", "ReadTimeout", "SSE_READ_TIMEOUT", "as the header's", "body read", "408, closed"),
    Timer("active", "WriteTimeout", "SSE_WRITE_TIMEOUT", "first byte of the answer", "answer written", "closed"),
    Timer("idle", "IdleTimeout", "SSE_IDLE_TIMEOUT", "answer written", "first byte of a request", "closed"),
    Timer(
        "stream", "(per-write deadline)", "SSE_WRITE_TIMEOUT", "bytes wait", "a byte is taken", "closed; it resumes"
    ),
)

# Why a connection was closed by us, for the counter.
CLOSINGS: Final = (
    "read-header-timeout",
    "read-timeout",
    "write-timeout",
    "idle-timeout",
    "bad-request",
    "error",
    "keepalive-requests",
    "evicted",
)

# An unread rest of a body up to this is read and thrown away, so that the connection can be kept; beyond it the
# connection is closed (Go does the same with the same figure).
DISCARD_BODY_BYTES: Final = 256 * 1024

# How long the rest of an unwanted body may take where there is no read time-out.
DISCARD_SECONDS: Final = 5.0

# After an answer that leaves input unread the socket is kept so long, so that no reset destroys the answer
# (RFC 9112 §9.6).
LINGER: Final = 0.5


class Connection:
    """A connection from accept to close or takeover. One greenlet runs :meth:`serve`."""

    __slots__ = (
        "_discard_until",
        "_draining",
        "_header_began",
        "_header_bytes",
        "_idle",
        "_max_header_bytes",
        "_settings",
        "addr",
        "broken",
        "expects_continue",
        "listener",
        "lost",
        "opened",
        "reading_body",
        "served",
        "server_header",
        "sock",
        "state",
        "takeover",
        "write_timeout",
    )

    def __init__(self, sock: Any, addr: Any, settings: Settings, draining: Callable[[], bool]) -> None:
        self.sock = sock
        self.addr = addr
        self.state = "new"
        self.opened = time.monotonic()
        self.served = 0
        self.listener: Any = None  # what its listener is bound to: (host, port, ...), or a Unix socket's path
        self.broken: str | None = None  # the reason why no further request can be read
        self.lost = "client"  # why an answer could not be written to its end: one of sse.streams.stream.CLOSE_REASONS
        self.reading_body = False
        self.expects_continue = False
        self.takeover: tuple[Hub, Stream] | None = None
        self.write_timeout = settings.sse_write_timeout
        self.server_header = settings.sse_server_header
        self._settings = settings
        self._draining = draining
        self._discard_until = 0.0  # when to stop reading a body that nobody wants, monotonic; 0: it is wanted
        self._header_began = self.opened
        self._header_bytes = 0
        self._idle: IdleTimer | None = None
        self._max_header_bytes = settings.sse_max_header_bytes

    # ── how long to wait, in seconds; None = for ever ─────────────────────────────────────────────────────

    def header_time_left(self) -> float | None:
        if self.state == "idle":
            return self._settings.sse_idle_timeout or None
        # As in Go, a read time-out without a header time-out bounds the header, too.
        limit = self._settings.sse_read_header_timeout or self._settings.sse_read_timeout
        return self._left(limit)

    def body_time_left(self) -> float | None:
        if self._discard_until:
            return max(self._discard_until - time.monotonic(), 0.001)
        return self._left(self._settings.sse_read_timeout)

    def _left(self, limit: float) -> float | None:
        if not limit:
            return None
        return max(self._header_began + limit - time.monotonic(), 0.001)

    def header_room(self) -> int:
        """How many bytes of the header may still be read, at least 1. Raises LimitRequestHeaders (431)."""
        room = self._max_header_bytes - self._header_bytes
        if room <= 0:
            raise LimitRequestHeaders(f"the header is over {self._max_header_bytes} bytes (SSE_MAX_HEADER_BYTES)")
        return room

    def took_header_bytes(self, count: int) -> None:
        """Account for bytes of a header; the first ones end the idle state."""
        if self.state == "idle":
            self.begin_request()
        self._header_bytes += count

    def begin_request(self) -> None:
        self.state = "active"
        self._header_began = time.monotonic()

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────

    def must_close(self) -> bool:
        """Is the answer that is being made the last one on this connection?"""
        limit = self._settings.sse_keepalive_requests
        return self.broken is not None or self.expects_continue or 0 < limit <= self.served or self._draining()

    def requests(
        self,
        cfg: Any,
        answer: Callable[[Any], bool],
        count_closing: Callable[[str], None],
        heads: Heads | None = None,
        listener: Any = None,
    ) -> None:
        """Read requests and have each answered, until the connection ends. ``answer`` says whether it may go on;
        ``heads`` has what was parsed before, of requests to the address ``listener``. Raises what the parser raises for
        a bad request, OSError."""
        parser = get_parser(cfg, self.sock, self.addr)
        parser.mesg_class = Request
        parser.unreader = reader = Reader(self)
        conditions = None if heads is None else heads.conditions(listener, self.addr)
        proxied: Any = None
        while True:
            seen = known = None
            try:
                data = reader.read()
                if not data:
                    return
                if heads is not None and conditions is not None and (seen := heads.look(conditions, data)) is not None:
                    known = heads.request(seen, reader, self.addr, parser.req_count + 1)
                if known is None:
                    reader.unread(data)
                    request = next(parser)
            except HeaderTimeout:
                count_closing("idle-timeout" if self.state == "idle" else "read-header-timeout")
                return
            except (StopIteration, NoMoreData):
                return
            if self.state == "idle":
                self.begin_request()  # a pipelined request: its header was read together with the one before
            self.state = "active"
            self.served += 1
            self.reading_body = True
            if known is not None and seen is not None:
                request, length = known
                parser.req_count += 1
                reader.hold(data[seen.end :])
                body: Body = SizedBody(reader, length, self)
            else:
                # A PROXY line stands before a connection's first request, and speaks for all of them.
                proxied = request.proxy_protocol_info = request.proxy_protocol_info or proxied
                self.expects_continue = request._expected_100_continue
                request._expected_100_continue = False
                check(request)
                if heads is not None and seen is not None:
                    heads.learn(seen, data, request)
                body = Body(request.body, self)
            request.body = body
            if not answer(request) or self.takeover is not None:
                if (reason := self._why_last(request)) is not None:
                    count_closing(reason)
                return
            if not body.is_read():
                parser.mesg = request
                deadline = self._discard_until = self._body_deadline()
                try:
                    found_end = parser.finish_body(deadline=deadline, max_bytes=DISCARD_BODY_BYTES)
                except HTTPException:
                    found_end = False  # the rest of the body was faulty or late, but the request has its answer
                if not found_end:
                    if self.broken == "read-timeout" or time.monotonic() >= deadline:
                        count_closing("read-timeout")
                    return
                self._discard_until = 0.0
            parser.mesg = None  # its own look at an unread body, before the next request, is the one above
            self.reading_body = False
            self._header_bytes = len(reader.buf.getvalue())
            self.state = "idle"
            try:
                self._await_request(reader)
            except HeaderTimeout:
                count_closing("idle-timeout")
                return

    def _why_last(self, request: Any) -> str | None:
        """Why we close the connection after this answer; None where that is not our decision, or is counted elsewhere
        (a stream, a drain)."""
        if self.broken in CLOSINGS:
            return self.broken
        limit = self._settings.sse_keepalive_requests
        if self.takeover is None and 0 < limit <= self.served and not request.should_close():
            return "keepalive-requests"
        return None

    def _await_request(self, reader: Reader) -> None:
        """Let others run, and wait until the next request begins. Raises HeaderTimeout.

        A client that always has the next request ready would never let anyone else run: gevent only switches where a
        read would block. Waiting before the read has the loop look at its sockets once, and costs less than a read that
        fails and then waits. TLS may hold bytes that its socket no longer has.
        """
        event = None if isinstance(self.sock, ssl.SSLSocket) else getattr(self.sock, "_read_event", None)
        if event is None or reader.buf.getvalue():
            breathe()
            return
        if self._idle is None:
            self._idle = IdleTimer()
        self._idle.wait(event, self._settings.sse_idle_timeout)

    def _body_deadline(self) -> float:
        left = self.body_time_left()
        return time.monotonic() + (DISCARD_SECONDS if left is None else left)

    # ── what the response may ask ─────────────────────────────────────────────────────────────────────────

    def take_over(self, hub: Hub, stream: Stream) -> None:
        """The socket goes to the fan-out once the response's generator has returned."""
        if self._idle is not None:
            self._idle.close()
        self.takeover = (hub, stream)

    def hung_up(self) -> bool:
        """``environ["sse.hung_up"]``: has the peer closed its side? Never blocks."""
        poll = _original_poll()
        poll.register(self.sock.fileno(), select.POLLRDHUP)
        found = poll.poll(0)
        if found and found[0][1] & select.POLLERR:
            self.lost = "reset"
        return bool(found)

    def why_lost(self) -> str:
        """``environ["sse.why_lost"]``: for a generator stream that is closed in the middle."""
        return self.lost

    def hang_up(self) -> None:
        """Make an idle connection's greenlet see its end."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def finish(self) -> None:
        """Close; with unread input, after our FIN and a moment for the peer to read our last answer."""
        self.state = "closed"
        sock = self.sock
        if self._idle is not None:
            self._idle.close()
        try:
            if sock.fileno() < 0:
                return
            if isinstance(sock, ssl.SSLSocket):
                # Our close_notify, without waiting for the peer's: what follows is an end, and not a truncation.
                sock.settimeout(0)
                sock.unwrap()
            if self.reading_body or self.broken:
                sock.shutdown(socket.SHUT_WR)
                deadline, taken = time.monotonic() + LINGER, 0
                while taken < DISCARD_BODY_BYTES and (left := deadline - time.monotonic()) > 0:
                    sock.settimeout(left)
                    data = sock.recv(65536)
                    if not data:
                        break
                    taken += len(data)
        except OSError:
            pass
        finally:
            sock.close()


def why_lost(error: BaseException) -> str:
    """The close reason of a stream whose write failed, or that the end of the worker cut."""
    if isinstance(error, TimeoutError):
        return "write-timeout"
    if isinstance(error, GreenletExit):
        return "cut"
    return "client" if isinstance(error, BrokenPipeError | ssl.SSLError) else "reset"


def _original_poll() -> Any:
    """A poll object that does not switch greenlets: with a time-out of 0 it has no reason to."""
    from gevent.monkey import get_original

    return get_original("select", "poll")()
