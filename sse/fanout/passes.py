"""Passes: write each group's new frames to all its live sockets.

A group with pending frames gets a *pass*: its frames are joined once into one chunk, which is written to each live
socket without blocking. After PASS_SLICE seconds of writing, the event loop runs, so that probes and new requests stay
fast. Frames that arrive meanwhile wait for the next round of passes. If publishers need the core, a gap precedes that
round: chunks then carry many events, which is where the throughput comes from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from time import monotonic, perf_counter, process_time

import gevent
from gevent.event import Event as GeventEvent

from ..events.names import INJECTED_CHANNELS
from ..runtime.cooperation import breathe
from ..streams.compression import ALONE, SHARED, Compression
from ..streams.group import Group
from ..streams.stream import CloseReason, State, Stream
from .catchup import CatchUp
from .chunk import Chunk
from .sockets import Sockets, reason_of

# The event loop runs after this many seconds of writing. A probe waits at most about twice as long.
PASS_SLICE = 0.002
# Streams written to between two looks at the clock: a look costs a twentieth of a write.
CLOCK_EVERY = 32
# A pass joins at most this much (plus one event). It bounds what one stalled stream pins.
MAX_CHUNK_BYTES = 256 * 1024

# Under load, the gap between two rounds is at most this many times as long as the last round, and at most GAP_MOST
# seconds. Publishing and all else then have three quarters of the core; GAP_MOST bounds how long an event waits.
GAP_SHARE = 3.0
GAP_MOST = 0.025
# The gap ends early once the process has used less than GAP_USED of the CPU time of one step: nobody needs the core, so
# an event that waits would wait for nothing. A publisher on one connection that pauses for as long as a step between
# two requests still counts as one who needs it.
GAP_STEP = 0.001
GAP_USED = 0.2
# From one round to the next, a process that used this share of the core was short of it.
BUSY = 0.9
# The tailer does not read the log for each event in the gap, but once for the next round, this many seconds before the
# gap ends.
READ_AHEAD = 0.001


class Passes:
    """Rounds of passes over the hub's dirty groups.

    reading  cleared while a gap lasts: the tailer need not read the log yet
    """

    def __init__(self, sockets: Sockets, catchup: CatchUp) -> None:
        self._hub = sockets.hub
        self._sockets = sockets
        self._catchup = catchup
        self._stats = sockets.stats
        self._work = GeventEvent()
        self._slice_ends = 0.0
        self._pressed = 0  # consecutive rounds that ended under load
        self._ended = self._used = 0.0  # when the last round ended: monotonic seconds, and seconds of CPU time
        self._breathed = 0.0  # seconds of the current round that other greenlets had
        self._group: Group | None = None  # of the pass that is under way
        self._recalled = False  # its chunk must not be sent to any more streams
        self.reading = GeventEvent()
        self.reading.set()

    def wake(self) -> None:
        """Begin a round: a group has become dirty."""
        self._work.set()

    def recall(self, groups: Collection[Group]) -> None:
        """Send the chunk of the pass that is under way to no more streams if it is one of these groups': events that
        it may have were erased."""
        if self._group in groups:
            self._recalled = True

    def beat(self, group: Group) -> None:
        """Send a heartbeat to all live streams of a group with gzip, unless events do instead."""
        assert group.compression is not None
        group.compression.beat = True
        if not group.dirty:
            group.dirty = True
            self._hub.dirty.append(group)
        self.wake()

    def run(self) -> None:
        """Run one round of passes over the dirty groups; wait until there is one."""
        dirty = self._hub.dirty
        if not dirty:  # a round that failed leaves groups dirty
            self._work.wait()
        self._work.clear()
        self._slice_ends = perf_counter() + PASS_SLICE
        self._breathed = 0.0
        began = perf_counter()
        # Groups that become dirty during this round wait for the next: after the gap they have more to join.
        todo = len(dirty)
        while dirty and todo:
            todo -= 1
            group = dirty.popleft()
            group.dirty = False
            self._pass(group)
            if perf_counter() > self._slice_ends:
                self._breathe()
        took = perf_counter() - began - self._breathed
        self._pressed = self._pressed + 1 if self._is_under_load() else 0
        gap = min(took * GAP_SHARE, GAP_MOST)
        # Once may be chance (one event arrives while another is written), and must not delay a pass. A shorter gap
        # would join nothing.
        if self._pressed > 1 and gap > READ_AHEAD:
            self._leave_gap(gap)

    def _is_under_load(self) -> bool:
        """Return whether events arrived during the round that ends now, or the core was busy since the one before.

        A round that is shorter than PASS_SLICE lets nothing arrive, so only the core shows that there is load.
        """
        now, used = monotonic(), process_time()
        busy = used - self._used >= BUSY * (now - self._ended)
        self._ended, self._used = now, used
        return busy or self._work.is_set()

    def _leave_gap(self, most: float) -> None:
        """Leave the core to publishers and all else for as long as they use it; ``most``: seconds."""
        self.reading.clear()
        end = monotonic() + most - READ_AHEAD
        try:
            while (left := end - monotonic()) > 0:
                step, used = min(left, GAP_STEP), process_time()
                gevent.sleep(step)
                if process_time() - used < step * GAP_USED:
                    return
            self.reading.set()
            gevent.sleep(READ_AHEAD)
        finally:
            self.reading.set()

    def _pass(self, group: Group) -> None:
        pending = group.pending
        if not pending:
            if group.compression is not None and group.compression.beat:
                position = group.position(self._hub.window.position)
                body = group.form.heartbeat(position, time.time_ns() // 1_000_000)
                self._send(group, iter(group.live.copy()), Chunk.heartbeat(position, body, group), position)
            else:
                self._run_deferred(group)
            return
        size = count = 0
        for frame in pending:
            size += len(frame.wire)
            count += 1
            if size >= MAX_CHUNK_BYTES:
                break
        frames = pending[:count]
        before = frames[0].position - 1
        chunk = Chunk.of(frames, frames[-1].position, group)
        waiting = iter(group.live.copy())
        # Nothing above has changed the group; from here on these frames belong to this pass, even if it fails.
        group.pending = pending[count:]
        if group.pending:
            group.dirty = True
            self._hub.dirty.append(group)
        took, ended, live = self._send(group, waiting, chunk, before)
        if group.traced:
            self._hub.deliveries.written(group, frames, live, took, ended)
        if _is_counted(group):
            self._stats.delivery.observe_ages((frame.position for frame in frames), ended)
        self._stats.passes.observe(took)

    def _send(
        self, group: Group, waiting: Iterator[Stream], chunk: Chunk, before: int
    ) -> tuple[float, float, int]:
        """Send a chunk to the live streams of a group, which were served through ``before``.

        Returns the seconds that it took, when it ended (Unix seconds), and how many streams were live then.
        """
        began = perf_counter()
        group.events += chunk.events
        group.bytes += chunk.size
        group.last_sent = monotonic()
        group.passing = True
        self._group, self._recalled = group, False
        try:
            if group.compression is not None:
                chunk = self._compress(group.compression, chunk)
                if self._recalled:
                    self._hold_back(waiting, chunk, before)
            self._write_all(group, waiting, chunk, before)
        except Exception:
            self._end_unreached(waiting, chunk, before)
        finally:
            group.passing = False
            self._group = None
            took, ended, live = perf_counter() - began, time.time(), len(group.live)
            self._run_deferred(group)
        return took, ended, live

    def _compress(self, compression: Compression, chunk: Chunk) -> Chunk:
        """Return a chunk with its wires for streams with gzip. Lets the event loop run if that takes long."""
        compression.beat = False
        if not len(compression):
            return chunk
        coded = chunk._replace(wires=compression.encode(chunk.body, monotonic(), self._pause, event=chunk.size > 0))
        inside = compression.inside
        self._stats.gzip_text += chunk.size * len(compression)
        self._stats.gzip_sent += inside * len(coded.wires[SHARED] or b"")
        self._stats.gzip_sent += (len(compression) - inside) * len(coded.wires[ALONE] or b"")
        return coded

    def _pause(self) -> None:
        if perf_counter() > self._slice_ends:
            self._breathe()

    def _write_all(self, group: Group, waiting: Iterator[Stream], chunk: Chunk, before: int) -> None:
        """Write the chunk to each live stream: the hot loop, about 20 bytecodes beside the system call.

        After an exception ``waiting`` still has the streams that were not reached.
        """
        write = os.write
        wires = chunk.wires
        until_clock = CLOCK_EVERY
        live = State.LIVE  # a local name: looking up an enum's member costs as much as the rest of the line
        done = 0
        try:
            for stream in waiting:
                # The pass yields, so a stream may have left the group, and even come back, before its turn.
                if stream.state is not live:
                    continue
                data = wires[stream.coding]
                try:
                    sent = write(stream.fd, data)
                    done += 1
                    if sent != len(data):
                        self._sockets.lag(stream, chunk.position, memoryview(data)[sent:])
                except BlockingIOError:
                    self._uncount(stream, chunk)
                    self._sockets.lag(stream, before)
                except OSError as error:
                    self._uncount(stream, chunk)
                    self._sockets.close(stream, reason_of(error))
                until_clock -= 1
                if not until_clock:
                    until_clock = CLOCK_EVERY
                    if perf_counter() > self._slice_ends:
                        self._breathe()
                        if self._recalled:
                            self._hold_back(waiting, chunk, before)
        except Exception:
            self._sockets.fail(stream)
            raise
        finally:
            if _is_counted(group):
                self._stats.delivered += chunk.events * done
                self._stats.bytes_sent += chunk.size * done

    def _hold_back(self, waiting: Iterator[Stream], chunk: Chunk, before: int) -> None:
        """Make the streams that the pass has not reached lag. They then read what is left of the chunk's events."""
        for stream in waiting:
            if stream.state is State.LIVE:
                self._uncount(stream, chunk)
                self._sockets.lag(stream, before)
                if perf_counter() > self._slice_ends:
                    self._breathe()

    def _end_unreached(self, waiting: Iterator[Stream], chunk: Chunk, before: int) -> None:
        """End the streams that a failed pass has not reached: they must not stay live without this chunk."""
        self._sockets.failures.report("a pass failed; the streams that it had not reached end")
        for stream in waiting:
            if stream.state is State.LIVE:
                self._uncount(stream, chunk)
                try:
                    self._catchup.end_at(stream, before, CloseReason.ERROR)
                except Exception:
                    self._sockets.fail(stream)

    @staticmethod
    def _uncount(stream: Stream, chunk: Chunk) -> None:
        """Take a chunk off a stream's counts: its group's counts include it, but the stream was not sent it."""
        stream.events -= chunk.events
        stream.bytes -= chunk.size
        if stream.group.compression is not None:
            stream.group.compression.unsent(stream)

    def _breathe(self) -> None:
        """Let the loop run once: probes, publishers, new streams."""
        began = perf_counter()
        breathe()
        now = perf_counter()
        self._breathed += now - began
        self._slice_ends = now + PASS_SLICE

    def _run_deferred(self, group: Group) -> None:
        if group.deferred:
            actions, group.deferred = group.deferred, []
            for action in actions:
                try:
                    action()
                except Exception:
                    self._sockets.failures.report("a stream's join or end after a pass failed; the others go on")


def _is_counted(group: Group) -> bool:
    """Return whether metrics count this group's events: those of the worker's own channels are not from the log."""
    return group.subscription.channels.isdisjoint(INJECTED_CHANNELS)
