"""One connection, from accept to close or takeover: gunicorn's parser under the deadlines of
:mod:`sse.worker.deadlines`."""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from greenlet import GreenletExit
from gunicorn.config import PostRequest
from gunicorn.http import get_parser
from gunicorn.http.errors import NoMoreData
from werkzeug.exceptions import HTTPException

from ..observe import access as accesslog
from ..observe.environ import REQUEST_ID
from ..observe.request_id import new_request_id
from ..runtime.cooperation import breathe
from ..runtime.redaction import Redaction
from ..settings import Settings
from ..streams.stream import CloseReason
from .body import Body, SizedBody, check
from .deadlines import CLOSINGS, ConnState, Deadlines
from .idle import IdleTimer
from .parser import Request
from .reader import HeaderTimeout, Reader
from .repeats import MAX_REPEATS, Repeat, RepeatFailed, Whole, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..streams.hub import Hub
    from ..streams.stream import Stream
    from .head_memory import HeadMemory

# gunicorn quotes the line or field that it refused, which may contain a token (threat: a URL with a space).
logging.getLogger("gunicorn.error").addFilter(Redaction())


# To keep the connection, we read and discard up to this much of an unread body; if more is left, we close it (as Go
# does, with the same limit).
DISCARD_BODY_BYTES: Final = 256 * 1024

# Time limit for discarding a body if no read time-out is set.
DISCARD_SECONDS: Final = 5.0

# After a response that leaves input unread, keep the socket open this long, so that a reset does not destroy the
# response (RFC 9112 §9.6).
LINGER: Final = 0.5


class Connection(Deadlines):
    """A connection from accept to close or takeover. One greenlet runs :meth:`requests`.

    draining: returns whether the worker drains. hand_over: gives the socket to a hub's fan-out. listener: the
    listener's address: (host, port, ...), or a Unix socket's path.
    """

    __slots__ = ("_hand_over", "_idle", "_repeats", "addr", "listener", "lost", "offered", "sock")

    def __init__(
        self,
        sock: Any,
        addr: Any,
        settings: Settings,
        draining: Callable[[], bool],
        hand_over: Callable[[Hub, Stream, Any], None] | None = None,
        listener: Any = None,
    ) -> None:
        super().__init__(settings, draining)
        self.sock = sock
        self.addr = addr
        self.listener = listener
        self.lost = CloseReason.CLIENT  # why a response could not be completed
        self._hand_over = hand_over
        self._idle: IdleTimer | None = None
        self._repeats: dict[bytes, Repeat] = {}
        self.offered: Repeat | None = None  # by the app, for requests with the head of the one that it has answered

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────

    def requests(
        self,
        cfg: Any,
        answer: Callable[[Any], bool],
        count_closing: Callable[[str], None],
        heads: HeadMemory | None = None,
    ) -> None:
        """Read and answer requests until the connection ends.

        answer: answers a request; returns whether the connection may continue. heads: remembers parsed heads.

        Raises OSError, and the parser's exceptions for a bad request.
        """
        parser = get_parser(cfg, self.sock, self.addr)
        parser.mesg_class = Request
        parser.unreader = reader = Reader(self.sock, self)
        conditions = None if heads is None else heads.conditions(self.listener, self.addr)
        proxied: Any = None
        while True:
            seen = known = raised = None
            try:
                data = reader.read()
                if not data:
                    return
                if self._repeats and (again := whole(data)) is not None and again.key in self._repeats:
                    try:
                        may_continue = self._repeat(again)
                    except RepeatFailed as error:
                        raised = error.reason
                    else:
                        if may_continue:
                            parser.req_count += 1
                            self._await_request(reader)
                            continue
                        if may_continue is False:
                            if self.used_up():
                                count_closing("keepalive-requests")
                            return
                if heads is not None and conditions is not None and (seen := heads.look(conditions, data)) is not None:
                    known = heads.request(seen, reader, self.addr, parser.req_count + 1)
                if known is None:
                    reader.unread(data)
                    request = next(parser)
            except HeaderTimeout:
                count_closing("idle-timeout" if self.state is ConnState.IDLE else "read-header-timeout")
                return
            except (StopIteration, NoMoreData):
                return
            if self.state is ConnState.IDLE:
                self.begin_request()  # a pipelined request: its head was read together with the previous request
            self.state = ConnState.ACTIVE
            self.served += 1
            self.reading_body = True
            if known is not None and seen is not None:
                request, length = known
                parser.req_count += 1
                reader.hold(data[seen.end :])
                body: Body = SizedBody(reader, length, self)
            else:
                # A PROXY line precedes a connection's first request and applies to all of its requests.
                proxied = request.proxy_protocol_info = request.proxy_protocol_info or proxied
                self.expects_continue = request._expected_100_continue
                request._expected_100_continue = False
                check(request)
                if heads is not None and seen is not None:
                    heads.learn(seen, data, request)
                body = Body(request.body, self)
            request.body = body
            if raised is not None:
                request.raised = raised
            if not answer(request):
                if (reason := self._why_last(request)) is not None:
                    count_closing(reason)
                return
            if not body.is_read():
                parser.mesg = request
                deadline = self.discard_until = self._body_deadline()
                try:
                    found_end = parser.finish_body(deadline=deadline, max_bytes=DISCARD_BODY_BYTES)
                except HTTPException:
                    found_end = False  # the rest of the body was malformed or late, but the request is already answered
                if not found_end:
                    if self.broken == "read-timeout" or time.monotonic() >= deadline:
                        count_closing("read-timeout")
                    return
                self.discard_until = 0.0
            if self.offered is not None:
                self._keep(data, self.offered)
            parser.mesg = None  # skip its own check for an unread body before the next request: done above
            self.begin_idle(len(reader.buf.getvalue()))
            try:
                self._await_request(reader)
            except HeaderTimeout:
                count_closing("idle-timeout")
                return

    def may_repeat(self, request: Any, cfg: Any) -> bool:
        """Return whether the app may offer how to answer a request with this head again (:mod:`sse.worker.repeats`)."""
        return request.head is not None and request.method == "POST" and cfg.post_request is PostRequest.default

    def _keep(self, data: bytes, offered: Repeat) -> None:
        """Keep what answers the head of a request again. ``data``: what was read at once of that request."""
        self.offered = None
        if (request := whole(data)) is not None:
            if len(self._repeats) >= MAX_REPEATS:
                self._repeats.clear()
            self._repeats[request.key] = offered

    def forget(self) -> None:
        """Forget all heads. Call it when :class:`HeadMemory` has forgotten some."""
        self._repeats.clear()

    def _repeat(self, request: Whole) -> bool | None:
        """Answer a request whose head is kept; return whether the connection may continue. None: the app must answer.

        Raises RepeatFailed, OSError, TimeoutError.
        """
        repeat = self._repeats[request.key]
        began = time.monotonic()
        if self.state is ConnState.IDLE:
            self.begin_request()  # it was read together with the previous request
        try:
            body = repeat.again(request.body)
        except Exception as error:
            raise RepeatFailed(error) from None
        if body is None:
            del self._repeats[request.key]  # the app offers another one if it still can
            return None
        self.served += 1
        name, last = new_request_id(), self.must_close()
        data = repeat.head(name, len(body), last) + body
        try:
            sent = os.write(self.sock.fileno(), data)  # nearly always all of it
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.sock.settimeout(self.write_timeout or None)
            self.sock.sendall(data[sent:])
        if accesslog.enabled():
            environ = {"REMOTE_ADDR": repeat.peer, "REQUEST_METHOD": repeat.method, REQUEST_ID: name}
            accesslog.request_answered(environ, repeat.target, repeat.status, len(body), began)
        self.begin_idle(0)
        return not last

    def _why_last(self, request: Any) -> str | None:
        """Return why we close the connection after this response; None if we did not decide it, or if it is counted
        elsewhere (a stream, a drain)."""
        if self.broken in CLOSINGS:
            return self.broken
        if self.state is not ConnState.STREAM and self.used_up() and not request.should_close():
            return "keepalive-requests"
        return None

    def _await_request(self, reader: Reader) -> None:
        """Yield to other greenlets, and wait until the next request begins. Raises HeaderTimeout.

        gevent switches only where a read would block, so a client that always has the next request ready would starve
        the others. Waiting before the read makes the loop poll its sockets once, and costs less than a read that
        fails and then waits. TLS may have buffered bytes that the socket no longer holds.
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

    # ── for the response ─────────────────────────────────────────────────────────────────────────

    def take_over(self, hub: Hub, stream: Stream) -> None:
        """Hand the socket to the fan-out; the opening must have been sent. From here on only the fan-out may write."""
        assert self._hand_over is not None
        self.state = ConnState.STREAM
        self._hand_over(hub, stream, self.sock)

    def hung_up(self) -> bool:
        """``environ["sse.hung_up"]``: True if the peer has closed its side. Never blocks."""
        poll = _original_poll()
        poll.register(self.sock.fileno(), select.POLLRDHUP)
        found = poll.poll(0)
        if found and found[0][1] & select.POLLERR:
            self.lost = CloseReason.RESET
        return bool(found)

    def why_lost(self) -> CloseReason:
        """``environ["sse.why_lost"]``: why a generator stream was cut short."""
        return self.lost

    def hang_up(self) -> None:
        """Shut the socket down, so that an idle connection's greenlet ends."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def finish(self) -> None:
        """Close. If input is unread, send our FIN first and give the peer time to read our last response."""
        self.state = ConnState.CLOSED
        sock = self.sock
        if self._idle is not None:
            self._idle.close()
        try:
            if sock.fileno() < 0:
                return
            if isinstance(sock, ssl.SSLSocket):
                # Send our close_notify, so that the peer sees an end, not a truncation; do not wait for its own.
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


def why_lost(error: BaseException) -> CloseReason:
    """Return the close reason for a stream whose write failed, or which the worker cut as it ended."""
    if isinstance(error, TimeoutError):
        return CloseReason.WRITE_TIMEOUT
    if isinstance(error, GreenletExit):
        return CloseReason.CUT
    return CloseReason.CLIENT if isinstance(error, BrokenPipeError | ssl.SSLError) else CloseReason.RESET


def _original_poll() -> Any:
    """Return a poll object that does not switch greenlets, which a time-out of 0 does not need."""
    from gevent.monkey import get_original

    return get_original("select", "poll")()
