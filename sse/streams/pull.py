"""Generator streams: a stream that is served by its own greenlet or thread, under any WSGI server.

The generator pulls from the window (else the log) whenever the hub wakes it. It is the path for servers that do not
offer the takeover: stock gevent and gthread workers, Flask's development server, TLS on the listener.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator

from ..events.model import heartbeat_block, retry_block
from ..log import LogUnavailable
from ..runtime.cooperation import breathe
from .group import Group
from .hub import Hub
from .replay import FellBehind
from .stream import CloseReason, State, Stream, spread_retry

# How often a silent stream checks whether its client is still there, where the worker can tell. Seconds.
HANG_UP_CHECK = 0.5
# A stream whose log is down looks again after this long; its heartbeats go on.
LOG_RETRY = 0.5
# Pages that a stream reads in a row before others have their turn, as `sse.fanout.catchup` does.
PAGES_PER_TURN = 4


class PullStream(Stream):
    """A stream with a way to be woken, and nothing queued but the newest injected block."""

    __slots__ = ("_end", "_hung_up", "_inbox", "_why_lost", "_woken", "hub")

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
    ) -> None:
        super().__init__(group, cursor, now=now, ends_at=ends_at, ends_as=ends_as, client=client, request_id=request_id)
        self.hub = hub
        # What our own worker can tell of the connection; elsewhere only a failing write shows that a client has gone.
        self._hung_up = hung_up
        self._why_lost = why_lost or (lambda: CloseReason.CLIENT)
        self._woken = threading.Event()
        self._inbox = b""
        self._end: CloseReason | None = None

    @classmethod
    def instead_of(
        cls, stream: Stream, hub: Hub, *, hung_up: Callable[[], bool] | None, why_lost: Callable[[], CloseReason] | None
    ) -> PullStream:
        """Make the generator stream that takes the place of one whose connection is not taken over."""
        return cls(
            hub,
            stream.group,
            stream.cursor,
            now=stream.opened,
            ends_at=stream.ends_at,
            ends_as=stream.ends_as,
            client=stream.client,
            hung_up=hung_up,
            why_lost=why_lost,
            request_id=stream.request_id,
        )

    def wake(self) -> None:
        """There may be something to pull."""
        self._woken.set()

    def push(self, wire: bytes) -> None:
        """A block that is in no log. Only the newest is kept: canaries and statistics replace each other."""
        self._inbox = wire
        self._woken.set()

    def end(self, reason: CloseReason) -> None:
        """End cleanly after what it is owed."""
        self._end = self._end or reason
        self._woken.set()

    def chunks(self) -> Iterator[bytes]:
        """What the client is to be sent from the stream's cursor on, until it ends or the generator is closed."""
        hub, reason, ended = self.hub, CloseReason.CLIENT, False
        pages = 0
        owed: int | None = None  # the position through which it is served before it ends
        self.become(State.REPLAYING)
        with hub.lock:
            self.group.waiters.add(self)
            hub.pulling.add(self)
        try:
            while True:
                self._woken.clear()
                if self._inbox:
                    wire, self._inbox = self._inbox, b""
                    yield wire
                    continue
                if self._end is None and self.ends_at <= time.monotonic():
                    self._end = self.ends_as
                if self._end is not None and owed is None:
                    # Fixed now: under a publisher that never rests, it would chase the tail and not end.
                    owed = hub.window.position
                down = False
                try:
                    moved = yield from self._page(hub.window.position if owed is None else owed)
                except LogUnavailable:
                    moved, down = False, True
                if moved:
                    pages += 1
                    if pages % PAGES_PER_TURN == 0:
                        breathe()  # a page may hold nothing of its types, and a fast reader never makes it wait
                    continue
                if self.state is State.REPLAYING and not down:
                    self.become(State.LIVE)
                if owed is not None:
                    assert self._end is not None
                    reason = self._end
                    self.become(State.ENDING)
                    yield retry_block(spread_retry(hub.settings.sse_retry))
                    ended = True
                    return
                now = time.monotonic()
                heartbeat = hub.settings.sse_heartbeat
                due = self.beat + heartbeat if heartbeat else float("inf")
                if due <= now:
                    self.beat = now
                    yield heartbeat_block(self.cursor, time.time_ns() // 1_000_000)
                    continue
                left = min(due, self.ends_at) - now
                if down:
                    left = min(left, LOG_RETRY)
                if self._hung_up is not None:
                    if self._hung_up():
                        return
                    left = min(left, HANG_UP_CHECK)
                self._woken.wait(left if left < threading.TIMEOUT_MAX else None)
        except FellBehind:
            reason = CloseReason.FELL_BEHIND
            self.become(State.ENDING)
            yield retry_block(spread_retry(hub.settings.sse_retry))
            ended = True
        finally:
            if not ended:
                reason = self._why_lost()
            with hub.lock:
                self.group.waiters.discard(self)
                hub.pulling.discard(self)
            self.state = State.CLOSED
            hub.closed(self, reason)

    def _page(self, tail: int) -> Generator[bytes, None, bool]:
        """Send one page if there is any up to ``tail``; returns whether the cursor moved."""
        hub = self.hub
        if self.cursor >= tail:
            return False
        page = hub.replay.read_page(self.group.subscription, self.cursor, tail)
        if page.frames:
            body = b"".join([frame.wire for frame in page.frames])
            self.beat = time.monotonic()
            yield body
            self.events += len(page.frames)
            self.bytes += len(body)
            if self.state is State.REPLAYING:
                hub.stats.replayed += len(page.frames)
            else:
                hub.stats.delivery.observe_ages((frame.position for frame in page.frames), time.time())
            if self.group.traced:
                with hub.lock:  # told by the first of the group's streams that has it, and by no other
                    hub.deliveries.written(self.group, page.frames, len(self.group.waiters), 0.0, time.time())
            hub.stats.delivered += len(page.frames)
            hub.stats.bytes_sent += len(body)
        moved = page.position > self.cursor
        self.cursor = page.position
        return moved
