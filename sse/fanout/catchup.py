"""Catching up: what a stream that is not live is sent, one by one, until it is live or has ended.

New streams, streams that lag and streams that end take the same way: first the unsent rest of a chunk, then pages
from the window, else from the log, through the group's position; then the stream is made live, or is sent its end.
Nothing here blocks: a socket that takes no more is waited for by the poller, and pages of the log are read by a few
readers of their own.
"""

from __future__ import annotations

import os
from collections import deque
from time import monotonic
from typing import NamedTuple

import gevent
from gevent.event import Event as GeventEvent

from ..events.chunked import LAST_CHUNK, encode_chunk
from ..events.model import Frame, retry_block
from ..log import LogError
from ..streams.group import Group
from ..streams.replay import FellBehind
from ..streams.stream import Backlog, CloseReason, State, Stream, spread_retry
from . import epoll as transport
from .sockets import Sockets, reason_of

# What a stream is sent at once while it catches up.
PAGE_BYTES = 64 * 1024
# Pages that a stream which catches up is sent before it is another one's turn: about the time
# of PASS_SLICE.
PAGES_PER_TURN = 4
# Reads of the log on behalf of lagging streams that may run at once: each takes a thread of the pool.
LOG_READERS = 4
# A reader whose log does not answer tries again after so many seconds.
LOG_PAUSE = 0.25


class Chunk(NamedTuple):
    """A page on the wire: the position that it leads to, how many events it has, and its bytes without and with chunked
    coding (RFC 9112 §7.1)."""

    position: int
    events: int
    body: bytes
    chunked: bytes


def chunk_of(frames: list[Frame], position: int) -> Chunk:
    body = b"".join([frame.wire for frame in frames])
    return Chunk(position, len(frames), body, encode_chunk(body))


class CatchUp:
    """See the module's text."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._hub = sockets.hub
        self._settings = sockets.settings
        self._stats = sockets.stats
        self._shared = Chunk(0, 0, b"", b"")
        self._shared_key: tuple[Group, int, int, int] | None = None
        self._want_log: deque[Stream] = deque()
        self._log_work = GeventEvent()

    def advance(self, stream: Stream) -> None:
        """Send a stream with a backlog as much as its socket takes: rest, pages, end; or make it live."""
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
                target = group.position(window.position)
                if backlog.end is not None:
                    target = min(target, backlog.owed)
                    if stream.cursor >= target:
                        self._make_final(stream, backlog)
                        continue
                if stream.cursor == target:
                    if group.passing:
                        group.deferred.append(lambda: self.advance(stream))
                        return
                    else:
                        self._make_live(stream)
                        return
                elif stream.cursor > target:
                    # It has seen what its group is still to be sent: it waits for that pass.
                    group.deferred.append(lambda: self.advance(stream))
                    return
                elif not pages:
                    # A fast reader with much to catch up on takes turns with the others: the poller reports it again.
                    self._sockets.poller.want_write(stream.fd)
                    return
                elif stream.cursor >= window.floor:
                    pages -= 1
                    self._queue(stream, backlog, self._page(group, stream.cursor, target))
                else:
                    backlog.reading = True
                    self._want_log.append(stream)
                    self._log_work.set()
                    return
        except OSError as error:
            self._sockets.close(stream, reason_of(error))
        except Exception:
            self._sockets.fail(stream)

    def _write_rest(self, stream: Stream, backlog: Backlog) -> bool:
        """Write what is left of the backlog's chunk; False when the socket is full. Raises OSError."""
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

    def _page(self, group: Group, after: int, target: int) -> Chunk:
        """The window's next page after a cursor. A crowd that was cut together comes back with one cursor, and shares
        one chunk."""
        window = self._hub.window
        key = (group, after, target, window.floor)  # another floor: it was filled anew
        if key != self._shared_key:
            subscription = group.subscription
            page = window.read(subscription.channels, subscription.types, after, target, PAGE_BYTES)
            self._shared, self._shared_key = chunk_of(page.frames, page.position), key
        return self._shared

    def _queue(self, stream: Stream, backlog: Backlog, chunk: Chunk) -> None:
        stream.cursor = chunk.position
        if chunk.events:
            backlog.rest = chunk.chunked if stream.chunked else chunk.body
            stream.events += chunk.events
            stream.bytes += len(chunk.body)
            self._stats.replayed += chunk.events
            self._stats.delivered += chunk.events
            self._stats.bytes_sent += len(chunk.body)

    def _make_live(self, stream: Stream) -> None:
        stream.backlog = None
        self._sockets.backlogged.discard(stream)
        if stream.state is State.LAGGING:
            self._sockets.poller.unwant_write(stream.fd)
        stream.become(State.LIVE)
        stream.group.add_live(stream)

    def read_log(self) -> None:
        """One page of the log for the stream that has waited longest; waits until there is one."""
        while not self._want_log:
            self._log_work.clear()
            self._log_work.wait()
        stream = self._want_log.popleft()
        backlog = stream.backlog
        if backlog is None or not backlog.reading:
            return
        target = stream.group.position(self._hub.window.position)
        try:
            page = self._hub.replay.read_page(stream.group.subscription, stream.cursor, target)
        except FellBehind:
            if self._still_reads(stream, backlog):
                self._end_here(stream, backlog, CloseReason.FELL_BEHIND)
            return
        except LogError:
            # The stream stays, with what it has, however long that takes: its client is not to blame, so no write
            # time-out runs (:mod:`sse.fanout.upkeep`).
            gevent.sleep(LOG_PAUSE)
            self._want_log.append(stream)
            return
        except Exception:
            if self._still_reads(stream, backlog):
                self._sockets.fail(stream)
            return
        if self._still_reads(stream, backlog):
            backlog.reading = False
            backlog.progress_at = monotonic()  # waiting for the log was not the client's fault
            self._queue(stream, backlog, chunk_of(page.frames, page.position))
            self.advance(stream)

    def end(self, stream: Stream, reason: CloseReason) -> None:
        """End a stream cleanly: all that it is owed, a ``retry:``, the terminating chunk."""
        try:
            self._end(stream, reason)
        except Exception:
            self._sockets.fail(stream)

    def _end(self, stream: Stream, reason: CloseReason) -> None:
        if stream.state is State.CLOSED or (stream.backlog is not None and stream.backlog.end is not None):
            return
        if stream.group.passing:
            # Only the pass knows whether it has had the chunk.
            stream.group.deferred.append(lambda: self.end(stream, reason))
            return
        if stream.state is State.LIVE:
            self._sockets.leave_live(stream, stream.group.position(self._hub.window.position), State.ENDING)
        else:
            stream.become(State.ENDING)
        assert stream.backlog is not None
        stream.backlog.end = reason
        # Fixed now: under a publisher that never rests, a slow reader would chase the tail and not end.
        stream.backlog.owed = stream.group.position(self._hub.window.position)
        self.advance(stream)

    def end_at(self, stream: Stream, cursor: int, reason: CloseReason) -> None:
        """End a live stream that has been served through ``cursor`` only, cleanly."""
        self._sockets.leave_live(stream, cursor, State.LAGGING)
        assert stream.backlog is not None
        self._end_here(stream, stream.backlog, reason)

    @staticmethod
    def _still_reads(stream: Stream, backlog: Backlog) -> bool:
        """Is the page that was read for this stream still wanted? Meanwhile it may have been closed, or ended where it
        was, its backlog is another then, or reads no more."""
        return stream.backlog is backlog and backlog.reading

    def _end_here(self, stream: Stream, backlog: Backlog, reason: CloseReason) -> None:
        """End a stream that is not live where it is, cleanly, after the unsent rest of its chunk: what follows its
        cursor is not to be had any more."""
        if backlog.reading:
            backlog.reading = False
            backlog.progress_at = monotonic()  # waiting for the log was not the client's fault
        if stream.state is not State.ENDING:
            stream.become(State.ENDING)
        backlog.end = reason
        backlog.owed = stream.cursor
        self.advance(stream)

    def end_live(self) -> None:
        """The hub was overtaken by the log's retention: what follows is not for those who are live now. Those who lag
        find it out when they read on."""
        for stream in self._sockets.clients():
            if stream.state is State.LIVE:
                self.end(stream, CloseReason.FELL_BEHIND)

    def let_all_go(self) -> None:
        """The log was replaced: no cursor means anything, so nothing more can be owed."""
        for stream in self._sockets.clients():
            backlog = stream.backlog
            if stream.state is State.LIVE:
                self.end(stream, CloseReason.REPLACED)
            elif backlog is not None and not backlog.final:
                self._end_here(stream, backlog, CloseReason.REPLACED)

    def _make_final(self, stream: Stream, backlog: Backlog) -> None:
        retry = retry_block(spread_retry(self._settings.sse_retry))
        backlog.rest = encode_chunk(retry) + LAST_CHUNK if stream.chunked else retry
        backlog.final = True

    def _linger(self, stream: Stream) -> None:
        stream.become(State.LINGERING)
        assert stream.backlog is not None
        stream.backlog.progress_at = monotonic()
        transport.shut_down(stream.fd)
