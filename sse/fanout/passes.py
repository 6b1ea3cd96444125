"""The fan-out: writes each group's chunk to all its sockets.

Theory of operation. All of this runs in one gevent loop and only ever waits for that loop, so between two waits
nothing changes under it. Three kinds of greenlets share the work:

    passes   a group with pending frames gets a *pass*: the frames are joined into one chunk, once, and written to
             each live socket, without blocking. After PASS_SLICE seconds of writing the loop is let run, so probes
             and new requests stay fast; what arrives meanwhile is joined into the next chunk, and under such load
             the next pass begins only after a gap, which is where the throughput comes from.
    poller   hang-ups, input from peers, sockets that have room again
    upkeep   heartbeats, leases, write time-outs, the drain (:mod:`sse.fanout.upkeep`)

A short write makes one stream *lagging* (see :mod:`sse.streams.stream`): its backlog is the unsent rest of the shared
chunk, and :mod:`sse.fanout.catchup` brings it back. A new stream begins just so, with an empty rest.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic, perf_counter

import gevent
from gevent.event import Event as GeventEvent

from ..events.chunked import encode_chunk
from ..events.model import SEQUENCE_BITS
from ..events.names import INJECTED_CHANNELS
from ..runtime.cooperation import breathe
from ..streams.group import Group
from ..streams.hub import Hub
from ..streams.stream import Backlog, CloseReason, State, Stream
from . import epoll as transport
from .catchup import LOG_READERS, CatchUp
from .sockets import Sockets, reason_of
from .upkeep import Upkeep

# Seconds of writing after which the loop is let run. A probe waits at most about this long, twice.
PASS_SLICE = 0.002
# Looking at the clock costs as much as a twentieth of a write.
CLOCK_EVERY = 32
# A pass joins at most this much (plus one event): the bound on what one stalled stream pins.
MAX_CHUNK_BYTES = 256 * 1024

# Under load the gap between two passes is this many times the last pass, within bounds in seconds: publishing and all
# else get three quarters of the core, chunks join what has come, and an event waits no longer than the bound for it.
GAP_SHARE = 3.0
GAP_MOST = 0.025
# The log is read once for the next pass, and not for each event that comes in the gap: so many seconds before its end.
READ_AHEAD = 0.001


class Fanout:
    """See the module's text. One per worker, made by the worker class.

    hub: where the groups are. Everything runs in the event loop that calls :meth:`start`.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.sockets = Sockets(hub)
        self.catchup = CatchUp(self.sockets)
        self.upkeep = Upkeep(self.sockets, self.catchup)
        self._stats = hub.stats
        self._work = GeventEvent()
        self._slice_ends = 0.0
        self._pressed = 0  # rounds in a row at whose end there was work again
        self._busy_until = 0.0  # end of the gap between two rounds, less READ_AHEAD; monotonic seconds
        self._breathed = 0.0  # seconds of the current passes that others had
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Begin, in this event loop."""
        self.hub.connect(self)
        loops: list[Callable[[], None]] = [self.run_passes, self._run_poller, self.upkeep.run]
        loops += [self.catchup.read_log] * LOG_READERS
        self._greenlets = [gevent.spawn(self._for_ever, loop) for loop in loops]

    def stop(self) -> None:
        """The end of the worker: what has not ended by itself is cut, and accounted for."""
        gevent.killall(self._greenlets, timeout=1.0)
        for stream in self.sockets.clients():
            self.sockets.close(stream, CloseReason.CUT)

    def busy(self) -> int:
        """How many clients' streams there are."""
        return self.sockets.count - self.sockets.own

    def wake(self) -> None:
        """See :class:`~sse.streams.hub.SocketStreams`."""
        self._work.set()

    def counts(self) -> Counter[str]:
        """See :class:`~sse.streams.hub.SocketStreams`."""
        return self.sockets.counts()

    def end_live(self) -> None:
        """See :class:`~sse.streams.hub.SocketStreams`."""
        self.catchup.end_live()

    def let_all_go(self) -> None:
        """See :class:`~sse.streams.hub.SocketStreams`."""
        self.catchup.let_all_go()

    def busy_until(self) -> float:
        """See :class:`~sse.streams.hub.SocketStreams`."""
        return self._busy_until

    def drain(self, window: float) -> None:
        """End every stream, spread evenly over ``window`` seconds (0 = at once)."""
        self.upkeep.drain(window)

    def adopt(self, stream: Stream, fd: int) -> None:
        """Own this descriptor from now on. The stream is opening and has been served through its cursor; what lies
        between that and its group's position is sent from here."""
        try:
            self.sockets.add(stream, fd)
        except Exception:
            self.sockets.failures.report("a stream's socket could not be taken over; it is closed")
            os.close(fd)
            stream.become(State.CLOSED)
            self.hub.closed(stream, CloseReason.ERROR)
            return
        stream.become(State.REPLAYING)
        stream.backlog = Backlog(monotonic())
        self.sockets.backlogged.add(stream)
        self.upkeep.joined(stream)
        self.catchup.advance(stream)

    # ── passes ────────────────────────────────────────────────────────────────────────────────────────────

    def run_passes(self) -> None:
        """One round of passes over what is dirty; waits until something is."""
        dirty = self.hub.dirty
        if not dirty:  # there is still something after a round that failed
            self._work.wait()
        self._work.clear()
        self._slice_ends = perf_counter() + PASS_SLICE
        self._breathed = 0.0
        began = perf_counter()
        # What is dirty now, and not what becomes so meanwhile: after its gap that has more to join.
        todo = len(dirty)
        while dirty and todo:
            todo -= 1
            group = dirty.popleft()
            group.dirty = False
            self._pass(group)
            if perf_counter() > self._slice_ends:
                self._breathe()
        took = perf_counter() - began - self._breathed
        self._pressed = self._pressed + 1 if self._work.is_set() else 0
        if self._pressed > 1:
            # Events arrived during this round, and during the one before: there is load. Without it, or by chance (one
            # event that comes while another is written), a pass begins at once.
            gap = min(took * GAP_SHARE, GAP_MOST)
            self._busy_until = monotonic() + gap - READ_AHEAD
            gevent.sleep(gap)

    def _pass(self, group: Group) -> None:
        pending = group.pending
        if not pending:
            self._run_deferred(group)
            return
        began = perf_counter()
        size = count = 0
        for frame in pending:
            size += len(frame.wire)
            count += 1
            if size >= MAX_CHUNK_BYTES:
                break
        frames = pending[:count]
        body = frames[0].wire if count == 1 else b"".join([frame.wire for frame in frames])
        chunk = encode_chunk(body)
        waiting = iter(group.live.copy())
        # What could fail is done: from here on these frames are this pass's.
        group.pending = pending[count:]
        if group.pending:
            group.dirty = True
            self.hub.dirty.append(group)
        before, through = frames[0].position - 1, frames[-1].position
        group.events += count
        group.bytes += len(body)
        group.last_sent = monotonic()
        group.passing = True
        try:
            self._write_all(group, waiting, chunk, body, count, before, through)
        except Exception:
            self._end_unreached(waiting, count, len(body), before)
        finally:
            group.passing = False
            took, ended, live = perf_counter() - began, time.time(), len(group.live)
            self._run_deferred(group)
        if group.traced:
            self.hub.deliveries.written(group, frames, live, took, ended)
        if group.subscription.channels.isdisjoint(INJECTED_CHANNELS):
            observe = self._stats.delivery.observe
            # Events of one batch have one time: a burst is counted by its milliseconds, not by its events.
            ms, times = before + 1 >> SEQUENCE_BITS, 0
            for frame in frames:
                if frame.position >> SEQUENCE_BITS != ms:
                    observe(ended - ms / 1000, times)
                    ms, times = frame.position >> SEQUENCE_BITS, 0
                times += 1
            observe(ended - ms / 1000, times)
        self._stats.passes.observe(took)

    def _write_all(
        self, group: Group, waiting: Iterator[Stream], chunk: bytes, body: bytes, events: int, before: int, through: int
    ) -> None:
        """Write the chunk to each live stream. The loop of this module: about 20 bytecodes beside the system call.
        After an exception ``waiting`` has those that were not reached."""
        write = os.write
        chunk_size = len(chunk)
        body_size = len(body)
        until_clock = CLOCK_EVERY
        live = State.LIVE  # a local name: a member of an enum costs as much as the rest of the line
        done = 0
        try:
            for stream in waiting:
                # The pass yields, so a stream that was live at its beginning may have left, and even come back, before
                # its turn.
                if stream.state is not live:
                    continue
                try:
                    if stream.chunked:
                        sent = write(stream.fd, chunk)
                        if sent == chunk_size:
                            done += 1
                        else:
                            self._fall_back(stream, memoryview(chunk)[sent:], through, events, body_size, True)
                    else:
                        sent = write(stream.fd, body)
                        if sent == body_size:
                            done += 1
                        else:
                            self._fall_back(stream, memoryview(body)[sent:], through, events, body_size, True)
                except BlockingIOError:
                    self._fall_back(stream, b"", before, events, body_size, False)
                except OSError as error:
                    self._uncount(stream, events, body_size)
                    self.sockets.close(stream, reason_of(error))
                until_clock -= 1
                if not until_clock:
                    until_clock = CLOCK_EVERY
                    if perf_counter() > self._slice_ends:
                        self._breathe()
        except Exception:
            self.sockets.fail(stream)
            raise
        finally:
            if group.subscription.channels.isdisjoint(INJECTED_CHANNELS):
                self._stats.delivered += events * done
                self._stats.bytes_sent += body_size * done

    def _end_unreached(self, waiting: Iterator[Stream], events: int, size: int, before: int) -> None:
        """A pass has failed: what it did not reach must not stay live without this chunk. It ends after what it has."""
        self.sockets.failures.report("a pass over streams failed; those that it had not reached end")
        for stream in waiting:
            if stream.state is State.LIVE:
                self._uncount(stream, events, size)
                try:
                    self.catchup.end_at(stream, before, CloseReason.ERROR)
                except Exception:
                    self.sockets.fail(stream)

    @staticmethod
    def _uncount(stream: Stream, events: int, size: int) -> None:
        """The group's counts have this chunk already, the stream has not got it."""
        stream.events -= events
        stream.bytes -= size

    def _breathe(self) -> None:
        """Let the loop run once: probes, publishers, new streams."""
        began = perf_counter()
        breathe()
        now = perf_counter()
        self._breathed += now - began
        self._slice_ends = now + PASS_SLICE

    def _fall_back(
        self, stream: Stream, rest: memoryview | bytes, cursor: int, events: int, size: int, counted: bool
    ) -> None:
        """A live stream's socket is full: it lags from here on, with the rest of this chunk."""
        self.sockets.leave_live(stream, cursor, State.LAGGING, rest)
        if counted:
            self._stats.delivered += events
            self._stats.bytes_sent += size
        else:
            self._uncount(stream, events, size)
        self.sockets.poller.want_write(stream.fd)

    def _run_deferred(self, group: Group) -> None:
        if group.deferred:
            waiting, group.deferred = group.deferred, []
            for action in waiting:
                try:
                    action()
                except Exception:
                    self.sockets.failures.report("a stream's turn after a pass failed; the others go on")

    # ── the poller ────────────────────────────────────────────────────────────────────────────────────────

    def _run_poller(self) -> None:
        loop = gevent.get_hub()
        watcher = loop.loop.io(self.sockets.poller.fileno(), 1)
        try:
            while True:
                loop.wait(watcher)
                self.poll()
        finally:
            watcher.close()

    def poll(self) -> None:
        """See what has happened on the sockets."""
        # Looked up now: while others run, a descriptor may be closed and come back as another stream's.
        ready = [(self.sockets.streams[fd], mask) for fd, mask in self.sockets.poller.poll()]
        slice_ends = perf_counter() + PASS_SLICE
        for stream, mask in ready:
            if stream is not None and stream.state is not State.CLOSED:
                try:
                    self.on_socket(stream, mask)
                except Exception:
                    self.sockets.fail(stream)  # the others must have their turn: none is reported twice
            if perf_counter() > slice_ends:
                breathe()
                slice_ends = perf_counter() + PASS_SLICE

    def on_socket(self, stream: Stream, mask: int) -> None:
        """Something has happened on a stream's socket."""
        try:
            if mask & transport.HANG_UP:
                # A reset shuts both sides down, too: only the error tells it from a client that closed.
                self.sockets.close(stream, CloseReason.RESET if mask & transport.ERROR else CloseReason.CLIENT)
                return
            gone = bool(mask & transport.PEER_CLOSED)
            if mask & transport.READABLE and not gone:
                gone = transport.discard_input(stream.fd)
            if gone:
                self.sockets.close(stream, CloseReason.CLIENT)
            elif mask & transport.WRITABLE:
                self.catchup.advance(stream)
        except transport.Flooded:
            self.sockets.close(stream, CloseReason.FLOODED)
        except OSError as error:
            self.sockets.close(stream, reason_of(error))

    def _for_ever(self, loop: Callable[[], None]) -> None:
        while True:
            try:
                loop()
            except Exception:
                # A bug must cost a log line and a turn, not every stream of the worker.
                self.sockets.failures.report(f"{getattr(loop, '__qualname__', loop)} failed; it goes on")
                gevent.sleep(0.05)
