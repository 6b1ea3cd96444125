"""Connection states, and the clock that runs in each: Go's ``http.Server`` time-outs.

A connection is in one of these states (Go's ``ConnState``), and in each exactly one timer runs:

    new     accepted, no request yet      header timer, from the accept
    active  a request's header came       read timer until the body is read, then write timer until it is answered
    idle    between two requests          idle timer; the next request's first byte starts its header timer
    stream  taken over by the fan-out     write timer, while bytes are waiting
    closed

:data:`TIMERS` is that table; docs/go-to-gunicorn.md shows it to users, and a test compares the two. A timer whose
setting is 0 does not run. If a header is late or a connection stays idle, we close without an answer, because nothing
was asked yet; a late body is answered 408; a late write can only close.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from gunicorn.http.errors import LimitRequestHeaders

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..settings import Settings


class ConnState(StrEnum):
    """A connection's state; the label of the metric of connections."""

    NEW = "new"
    ACTIVE = "active"
    IDLE = "idle"
    STREAM = "stream"
    CLOSED = "closed"


class Timer(NamedTuple):
    """One row of the table: the timer that runs in a state, and what happens when it fires."""

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
    Timer("stream", "(per-write deadline)", "SSE_WRITE_TIMEOUT", "bytes wait", "a byte is taken", "closed; it resumes"),
)

# Reasons for which the worker closes a connection, as the metrics count them.
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


class Deadlines:
    """A connection's state, clocks and limits. Knows no socket.

    draining: returns whether the worker drains. Each answer is then its connection's last.
    """

    __slots__ = (
        "_draining",
        "_header_began",
        "_header_bytes",
        "_max_header_bytes",
        "_settings",
        "broken",
        "discard_until",
        "expects_continue",
        "opened",
        "reading_body",
        "served",
        "server_header",
        "state",
        "write_timeout",
    )

    def __init__(self, settings: Settings, draining: Callable[[], bool]) -> None:
        self.state = ConnState.NEW
        self.opened = time.monotonic()
        self.served = 0
        self.broken: str | None = None  # why no further request can be read: one of CLOSINGS, or "client"
        self.reading_body = False
        self.expects_continue = False
        self.discard_until = 0.0  # when to stop discarding a body that the app did not read, monotonic; 0: not begun
        self.write_timeout = settings.sse_write_timeout
        self.server_header = settings.sse_server_header
        self._settings = settings
        self._draining = draining
        self._header_began = self.opened
        self._header_bytes = 0
        self._max_header_bytes = settings.sse_max_header_bytes

    # ── how long to wait, in seconds; None: for ever ──────────────────────────────────────────────────────

    def header_time_left(self) -> float | None:
        if self.state is ConnState.IDLE:
            return self._settings.sse_idle_timeout or None
        # As in Go, a read time-out without a header time-out bounds the header, too.
        limit = self._settings.sse_read_header_timeout or self._settings.sse_read_timeout
        return self._left(limit)

    def body_time_left(self) -> float | None:
        if self.discard_until:
            return max(self.discard_until - time.monotonic(), 0.001)
        return self._left(self._settings.sse_read_timeout)

    def _left(self, limit: float) -> float | None:
        if not limit:
            return None
        return max(self._header_began + limit - time.monotonic(), 0.001)

    def header_room(self) -> int:
        """Return how many more bytes of the header may be read, at least 1. Raises LimitRequestHeaders (431)."""
        room = self._max_header_bytes - self._header_bytes
        if room <= 0:
            raise LimitRequestHeaders(f"the header exceeds {self._max_header_bytes} bytes (SSE_MAX_HEADER_BYTES)")
        return room

    def took_header_bytes(self, count: int) -> None:
        """Count bytes of a header; the first ones end the idle state."""
        if self.state is ConnState.IDLE:
            self.begin_request()
        self._header_bytes += count

    def begin_request(self) -> None:
        """Leave the idle state: the next request's clock starts."""
        self.state = ConnState.ACTIVE
        self._header_began = time.monotonic()

    def begin_idle(self, read_ahead: int) -> None:
        """Enter the idle state; ``read_ahead`` bytes of the next request were already read."""
        self.reading_body = False
        self._header_bytes = read_ahead
        self.state = ConnState.IDLE

    # ── how long the connection lasts ─────────────────────────────────────────────────────────────────────

    def used_up(self) -> bool:
        """True once the connection has served SSE_KEEPALIVE_REQUESTS requests."""
        return 0 < self._settings.sse_keepalive_requests <= self.served

    def must_close(self) -> bool:
        """True if the answer that is being made is the last one on this connection."""
        return self.broken is not None or self.expects_continue or self.used_up() or self._draining()
