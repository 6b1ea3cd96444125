"""Catching up: serve each stream that is not live on its own, until it is live or has ended.

New streams, lagging streams and ending streams take the same path: the unsent rest of a chunk, then pages from the
window, or from the log if the window no longer has them, through the group's position. Then the stream becomes live, or
is sent its end. Nothing here blocks: the poller waits for full sockets, and a few greenlets of their own read the log.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from time import monotonic

import gevent
from gevent.event import Event as GeventEvent

from ..log import LogError
from ..streams.compression import ALONE
from ..streams.group import Group
from ..streams.replay import FellBehind
from ..streams.stream import Backlog, CloseReason, State, Stream, spread_retry
from . import epoll
from .chunk import Chunk
from .sockets import Sockets, reason_of

# The size of a page.
PAGE_BYTES = 64 * 1024
# Pages that one stream is sent before the others have their turn: they take about as long as PASS_SLICE.
PAGES_PER_TURN = 4
# Concurrent reads of the log. Each takes a thread of the pool.
LOG_READERS = 4
# A reader tries again after this many seconds if the log does not answer.
LOG_PAUSE = 0.25

NO_PAGE = Chunk(0, 0, 0, b"", ())


class CatchUp:
    """Advances every stream that has a backlog (:class:`~sse.streams.stream.Backlog`)."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._hub = sockets.hub
        self._settings = sockets.settings
        self._stats = sockets.stats
        self._page = NO_PAGE  # the page that was read last from the window
        self._page_key: tuple[Group, int, int, int] | None = None
        self._want_log: deque[Stream] = deque()
        self._log_work = GeventEvent()

    def advance(self, stream: Stream) -> None:
        """Send a stream as much of its backlog as its socket takes; then make it live, or end it."""
        backlog = stream.backlog
        if backlog is None or backlog.reading or stream.state is State.LINGERING:
            return
        group, window = stream.group, self._hub.window
        pages = PAGES_PER_TURN
        try:
            while True:
                if backlog.rest:
                    if not self._write_rest(stream, backlog):
                        return
                if backlog.final:
                    self._linger(stream)
                    return
                target = self._target(stream, backlog)
                if backlog.end is not None:
                    if stream.cursor >= target:
                        self._make_final(stream, backlog)
                        continue
                elif stream.cursor > target or (stream.cursor == target and group.passing):
                    # The stream is ahead of its group, or its group is in the middle of a pass: wait for a pass to end.
                    group.deferred.append(partial(self.advance, stream))
                    return
                elif stream.cursor == target:
                    if group.end and stream.cursor >= group.end:
                        self._end(stream, CloseReason.ENDED)
                    else:
                        self._make_live(stream)
                    return
                if stream.cursor < window.floor:
                    backlog.reading = True
                    self._want_log.append(stream)
                    self._log_work.set()
                    return
                if not pages:
                    # A fast reader with a long backlog takes turns with the others: the poller reports it again.
                    self._sockets.poller.want_write(stream.fd)
                    return
                pages -= 1
                self._queue(stream, backlog, self._read_window(group, stream.cursor, target))
        except OSError as error:
            self._sockets.close(stream, reason_of(error))
        except Exception:
            self._sockets.fail(stream)

    def _target(self, stream: Stream, backlog: Backlog) -> int:
        """Return the position through which a stream catches up: its group's, or what it is owed before it ends."""
        return backlog.owed if backlog.end is not None else stream.group.position(self._hub.window.position)

    def _write_rest(self, stream: Stream, backlog: Backlog) -> bool:
        """Write the rest of a chunk; return False if the socket is full. Raises OSError."""
        try:
            sent = os.write(stream.fd, backlog.rest)
        except BlockingIOError:
            sent = 0
        if sent:
            backlog.progress_at = monotonic()
        if sent == len(backlog.rest):
            backlog.rest = b""
            return True
        backlog.rest = memoryview(backlog.rest)[sent:]
        self._sockets.poller.want_write(stream.fd)
        return False

    def _read_window(self, group: Group, after: int, target: int) -> Chunk:
        """Return the window's next page after a cursor. A crowd that was cut together resumes from one cursor, and so
        shares one chunk."""
        window = self._hub.window
        key = (group, after, target, window.floor)  # the floor, because the window may have been reset
        if key != self._page_key:
            subscription = group.subscription
            page = window.read(subscription.channels, subscription.types, after, target, PAGE_BYTES)
            self._page, self._page_key = Chunk.of(page.frames, page.position, group).alone(), key
        return self._page

    def _queue(self, stream: Stream, backlog: Backlog, chunk: Chunk) -> None:
        """Make a page, if it has bytes, the backlog's rest, and count it."""
        stream.cursor = chunk.position
        if chunk.body:
            backlog.rest = chunk.wires[stream.coding]
            stream.count(chunk.body)
            stream.events += chunk.events
            stream.bytes += chunk.size
            self._stats.replayed += chunk.events
            self._stats.delivered += chunk.events
            self._stats.bytes_sent += chunk.size
            if stream.coding == ALONE:
                self._stats.gzip_text += chunk.size
                self._stats.gzip_sent += len(backlog.rest)

    def _make_live(self, stream: Stream) -> None:
        stream.backlog = None
        self._sockets.backlogged.discard(stream)
        if stream.state is State.LAGGING:
            self._sockets.poller.unwant_write(stream.fd)
        stream.become(State.LIVE)
        stream.group.add_live(stream)

    def read_log(self) -> None:
        """Read one page of the log for the stream that has waited longest; wait until there is one."""
        while not self._want_log:
            self._log_work.clear()
            self._log_work.wait()
        stream = self._want_log.popleft()
        backlog = stream.backlog
        if backlog is None or not backlog.reading:
            return
        target = self._target(stream, backlog)
        try:
            page = self._hub.replay.read_page(stream.group.subscription, stream.cursor, target, backlog.told)
        except FellBehind:
            if self._still_reads(stream, backlog):
                self._end_here(stream, backlog, CloseReason.FELL_BEHIND)
            return
        except LogError:
            # The stream waits for as long as the log is away. Its client is not to blame, so while `reading` is set no
            # write time-out runs (:mod:`sse.fanout.upkeep`).
            gevent.sleep(LOG_PAUSE)
            self._want_log.append(stream)
            return
        except Exception:
            if self._still_reads(stream, backlog):
                self._sockets.fail(stream)
            return
        if self._still_reads(stream, backlog):
            self._end_reading(backlog)
            self._queue(stream, backlog, Chunk.of(page.frames, page.position, stream.group).alone())
            self.advance(stream)

    @staticmethod
    def _still_reads(stream: Stream, backlog: Backlog) -> bool:
        """Return whether the stream still wants the page. While it was read, the stream may have been closed, or ended
        where it was."""
        return stream.backlog is backlog and backlog.reading

    @staticmethod
    def _end_reading(backlog: Backlog) -> None:
        backlog.reading = False
        backlog.progress_at = monotonic()  # the write time-out does not count the wait for the log

    def end(self, stream: Stream, reason: CloseReason) -> None:
        """End a stream cleanly: send all that it is owed, a ``retry:``, and the terminating chunk."""
        try:
            self._end(stream, reason)
        except Exception:
            self._sockets.fail(stream)

    def _end(self, stream: Stream, reason: CloseReason) -> None:
        if stream.state is State.CLOSED or (stream.backlog is not None and stream.backlog.end is not None):
            return
        if stream.group.passing:
            # Only the pass knows whether the stream has been sent its chunk.
            stream.group.deferred.append(partial(self.end, stream, reason))
            return
        if stream.state is State.LIVE:
            self._sockets.leave_live(stream, stream.group.position(self._hub.window.position), State.ENDING)
        else:
            stream.become(State.ENDING)
        assert stream.backlog is not None
        stream.backlog.end = reason
        # Fixed now: a slow reader would otherwise chase the tail of a busy channel and never end.
        stream.backlog.owed = stream.group.position(self._hub.window.position)
        self.advance(stream)

    def end_at(self, stream: Stream, cursor: int, reason: CloseReason) -> None:
        """End a live stream cleanly that has been served only through ``cursor``."""
        self._sockets.leave_live(stream, cursor, State.LAGGING)
        assert stream.backlog is not None
        self._end_here(stream, stream.backlog, reason)

    def _end_here(self, stream: Stream, backlog: Backlog, reason: CloseReason) -> None:
        """End a stream that is not live, cleanly, after the unsent rest of its chunk: it cannot be sent what follows
        its cursor."""
        if backlog.reading:
            self._end_reading(backlog)
        if stream.state is not State.ENDING:
            stream.become(State.ENDING)
        backlog.end = reason
        backlog.owed = stream.cursor
        self.advance(stream)

    def end_live(self) -> None:
        """End every live stream: retention has deleted what follows. Lagging streams notice when they read on."""
        for stream in self._sockets.clients():
            if stream.state is State.LIVE:
                self.end(stream, CloseReason.FELL_BEHIND)

    def let_all_go(self) -> None:
        """End every stream where it is: the log was replaced, so cursors mean nothing and nothing more is owed."""
        for stream in self._sockets.clients():
            self.end_now(stream, CloseReason.REPLACED)

    def end_now(self, stream: Stream, reason: CloseReason) -> None:
        """End a stream cleanly where it is, after the unsent rest of its chunk."""
        backlog = stream.backlog
        if stream.state is State.LIVE:
            self.end(stream, reason)
        elif backlog is not None and not backlog.final:
            self._end_here(stream, backlog, reason)

    def forget_page(self) -> None:
        """Forget the page that was read last from the window: it may have erased events."""
        self._page, self._page_key = NO_PAGE, None

    def _make_final(self, stream: Stream, backlog: Backlog) -> None:
        retry = stream.group.form.retry(spread_retry(self._settings.sse_retry))
        backlog.rest = stream.last(retry)
        backlog.final = True

    def _linger(self, stream: Stream) -> None:
        stream.become(State.LINGERING)
        assert stream.backlog is not None
        stream.backlog.progress_at = monotonic()
        epoll.shut_down(stream.fd)
