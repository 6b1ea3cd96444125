"""Generator streams: each is served by its own greenlet or thread, under any WSGI server.

The generator pulls from the window, or else the log, whenever the hub wakes it. It serves streams that are not taken
over: under gunicorn's gevent and gthread workers, under Flask's development server, with TLS on the listener.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final

from ..log import LogUnavailable
from ..runtime.cooperation import breathe
from .forms import count_events
from .group import Group
from .hub import Hub
from .replay import FellBehind
from .stream import CloseReason, State, Stream, spread_retry

HANG_UP_CHECK = 0.5  # seconds between looks whether a silent stream's client is still there, if the worker can tell
LOG_RETRY = 0.5  # seconds until a stream tries a log again that is down; its heartbeats go on meanwhile
PAGES_PER_TURN = 4  # pages that a stream reads in a row before it lets others run

# Streams that end for these reasons are sent no more.
_AT_ONCE: Final = frozenset({CloseReason.REVOKED, CloseReason.FELL_BEHIND})


class PullStream(Stream):
    """A stream that is woken and then pulls; nothing is queued for it but the newest injected block.

    hung_up: tells whether the client has left; why_lost: returns why a stream was cut short. Only our own worker has
    them; under others only a failing write shows that the client has left. told: see `sse.streams.replay.Begin`.
    """

    __slots__ = ("_end", "_hung_up", "_inbox", "_told", "_why_lost", "_woken", "hub")

    def __init__(
        self,
        hub: Hub,
        group: Group,
        cursor: int,
        *,
        now: float,
        ends_at: float,
        client: str,
        hung_up: Callable[[], bool] | None = None,
        why_lost: Callable[[], CloseReason] | None = None,
        request_id: str = "",
        ends_as: CloseReason = CloseReason.LEASE,
        owner: str = "",
        told: int = 0,
    ) -> None:
        super().__init__(
            group,
            cursor,
            now=now,
            ends_at=ends_at,
            ends_as=ends_as,
            client=client,
            owner=owner,
            request_id=request_id,
        )
        self.hub = hub
        self._hung_up = hung_up
        self._why_lost = why_lost or (lambda: CloseReason.CLIENT)
        self._woken = threading.Event()
        self._inbox = b""
        self._told = told
        self._end: CloseReason | None = None

    @classmethod
    def instead_of(
        cls, stream: Stream, hub: Hub, *, hung_up: Callable[[], bool] | None, why_lost: Callable[[], CloseReason] | None
    ) -> PullStream:
        """Make a generator stream from one whose connection is not taken over."""
        return cls(
            hub,
            stream.group,
            stream.cursor,
            now=stream.opened,
            ends_at=stream.ends_at,
            ends_as=stream.ends_as,
            client=stream.client,
            owner=stream.owner,
            hung_up=hung_up,
            why_lost=why_lost,
            request_id=stream.request_id,
            told=0 if stream.backlog is None else stream.backlog.told,
        )

    def wake(self) -> None:
        """Look whether there is something to pull."""
        self._woken.set()

    def push(self, wire: bytes) -> None:
        """Send a block that is in no log. Only the newest is kept: canaries and statistics replace each other."""
        self._inbox = wire
        self._woken.set()

    def end(self, reason: CloseReason) -> None:
        """End cleanly: after what the stream is owed, or at once."""
        self._end = self._end or reason
        self._woken.set()

    def chunks(self) -> Iterator[bytes]:
        """Yield what follows the stream's cursor, until the stream ends or the generator is closed."""
        hub = self.hub
        reason: CloseReason | None = None
        self.become(State.REPLAYING)
        with hub.lock:
            self.group.waiters[self] = None
            hub.pulling.add(self)
            self._end = self._end or hub.control.why_not(self)
        try:
            try:
                end = yield from self._serve()
            except FellBehind:
                end = CloseReason.FELL_BEHIND
            if end is not None:
                self.become(State.ENDING)
                yield self.group.form.retry(spread_retry(hub.settings.sse_retry))
                reason = end
        finally:
            with hub.lock:
                self.group.waiters.pop(self, None)
                hub.pulling.discard(self)
            self.state = State.CLOSED
            hub.closed(self, reason or self._why_lost())

    def _serve(self) -> Generator[bytes, None, CloseReason | None]:
        """Send everything until the end; return why it ends, None if the client has left. Raises FellBehind."""
        hub = self.hub
        pages = 0
        owed: int | None = None  # the position through which it is served before it ends
        while True:
            self._woken.clear()
            if self._inbox:
                wire, self._inbox = self._inbox, b""
                yield wire
                continue
            if self._end in _AT_ONCE:
                return self._end
            if self._end is None and self.ends_at <= time.monotonic():
                self._end = self.ends_as
            if self._end is not None and owed is None:
                owed = hub.window.position  # fixed now, or a steady publisher would keep the stream from ending
            down = False
            try:
                moved = yield from self._page(hub.window.position if owed is None else owed)
            except LogUnavailable:
                moved, down = False, True
            if moved:
                pages += 1
                if pages % PAGES_PER_TURN == 0:
                    breathe()  # a page without events of its types, or a fast reader, never makes it wait
                continue
            if self.state is State.REPLAYING and not down:
                self.become(State.LIVE)
            if owed is not None:
                return self._end
            if self.group.end and self.cursor >= self.group.end:
                return CloseReason.ENDED
            now = time.monotonic()
            heartbeat = hub.settings.sse_heartbeat
            due = self.beat + heartbeat if heartbeat else float("inf")
            if due <= now:
                self.beat = now
                yield self.group.form.heartbeat(self.cursor, time.time_ns() // 1_000_000)
                continue
            left = min(due, self.ends_at) - now
            if down:
                left = min(left, LOG_RETRY)
            if self._hung_up is not None:
                if self._hung_up():
                    return None
                left = min(left, HANG_UP_CHECK)
            self._woken.wait(left if left < threading.TIMEOUT_MAX else None)

    def _page(self, tail: int) -> Generator[bytes, None, bool]:
        """Send a page if there is any up to ``tail``; return if the cursor moved. Raises FellBehind, LogUnavailable."""
        hub = self.hub
        if self.cursor >= tail:
            return False
        page = hub.replay.read_page(self.group.subscription, self.cursor, tail, self._told)
        if page.frames:
            body = b"".join(self.group.form.wires(page.frames))
            self.beat = time.monotonic()
            yield body
            events = count_events(page.frames)
            self.events += events
            self.bytes += len(body)
            if self.state is State.REPLAYING:
                hub.stats.replayed += events
            else:
                hub.stats.delivery.observe_ages((frame.position for frame in page.frames), time.time())
            if self.group.traced:
                with hub.lock:  # the first of the group's streams that has it reports it for all
                    hub.deliveries.written(self.group, page.frames, len(self.group.waiters), 0.0, time.time())
            hub.stats.delivered += events
            hub.stats.bytes_sent += len(body)
        moved = page.position > self.cursor
        self.cursor = page.position
        return moved
