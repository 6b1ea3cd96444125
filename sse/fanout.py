"""The fan-out: writes each group's chunk to all its sockets, and looks after every socket that was taken over.

Theory of operation. All of this runs in one gevent loop and only ever waits for that loop, so between two waits
nothing changes under it. Three greenlets share the work:

    passes   a group with pending frames gets a *pass*: the frames are joined into one chunk, once, and written to
             each live socket, without blocking. After PASS_SLICE seconds of writing the loop is let run, so probes
             and new requests stay fast; what arrives meanwhile is joined into the next chunk, and under such load
             the next pass begins only after a gap, which is where the throughput comes from.
    poller   hang-ups, input from peers, sockets that have room again
    ticker   heartbeats (a sweep over the table of descriptors, so they are spread over the interval), leases,
             write time-outs, the drain's schedule

A short write makes one stream *lagging* (see :mod:`sse.stream`): its backlog is the unsent rest of the shared
chunk; when its socket has room, the rest goes first, then pages from the window (else from the log) until it has
reached its group's position and is live again. A new stream begins just so, with an empty rest.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter, deque
from time import monotonic, perf_counter

import gevent
from gevent.event import Event as GeventEvent

from sse import transport
from sse.event import SEQUENCE_BITS, heartbeat_block, retry_block
from sse.group import Group
from sse.hub import INJECTED_CHANNELS, FellBehind, Hub
from sse.log import LogError
from sse.runtime import breathe
from sse.stream import (
    CLOSED,
    ENDING,
    LAGGING,
    LINGERING,
    LIVE,
    OWN_CLIENT,
    REPLAYING,
    Backlog,
    Stream,
    end_reason,
    spread_retry,
)

logger = logging.getLogger("headwater.fanout")

# Seconds of writing after which the loop is let run. A probe waits at most about this long, twice.
PASS_SLICE = 0.002
# Looking at the clock costs as much as a twentieth of a write.
CLOCK_EVERY = 32
# A pass joins at most this much (plus one event): the bound on what one stalled stream pins.
MAX_CHUNK_BYTES = 256 * 1024
# Pages (a quarter of that each) that a stream which catches up is sent before it is another one's turn: about the time
# of PASS_SLICE.
PAGES_PER_TURN = 4
# Reads of the log on behalf of lagging streams that may run at once: each takes a thread of the pool.
LOG_READERS = 4
# After its end a stream's socket is kept this long for the peer's FIN.
LINGER = 1.0
TICK = 0.05  # seconds; the drain's grain, and the finest heartbeat
SWEEP = 1.0  # seconds for one round over all streams; heartbeats come up to this much early
END_CHUNK = b"0\r\n\r\n"

# Under load the gap between two passes is this many times the last pass, within bounds in seconds: publishing and all
# else get three quarters of the core, chunks join what has come, and an event waits no longer than the bound for it.
GAP_SHARE = 3.0
GAP_MOST = 0.015



class Fanout:
    """See the module's text. One per worker, made by the worker class.

    hub: where the groups are. Everything runs in the event loop that calls :meth:`start`.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._settings = hub.settings
        self._stats = hub.stats
        self._poller = transport.Poller()
        self._streams: list[Stream | None] = []  # by descriptor
        self.count = 0
        self.own = 0  # of these, the worker's own canaries: they end with the worker
        self._backlogged: set[Stream] = set()
        self._want_log: deque[Stream] = deque()
        self._work = GeventEvent()
        self._log_work = GeventEvent()
        self._sweep_at = 0
        self._slice_ends = 0.0
        self._breathed = 0.0  # seconds of the current passes that others had
        self._drain: list[Stream] = []
        self._drain_began = 0.0
        self._drain_window = 0.0
        self._drain_total = 0
        self._heartbeats: dict[Group, tuple[bytes, bytes]] = {}
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        self.hub.on_dirty = self._work.set
        self.hub.adopt = self.adopt
        self.hub.extra_counts = self.counts
        self.hub.on_overtaken = self._end_live
        self.hub.on_replaced = self._let_all_go
        loops = [self._run_passes, self._run_poller, self._run_ticker]
        loops += [self._run_log_reader] * LOG_READERS
        self._greenlets = [gevent.spawn(self._forever, loop) for loop in loops]

    def stop(self) -> None:
        """The end of the worker: what has not ended by itself is cut, and accounted for."""
        gevent.killall(self._greenlets, timeout=1.0)
        for stream in self._streams:
            if stream is not None and stream.client != OWN_CLIENT:
                self.close(stream, "cut")

    def counts(self) -> Counter[str]:
        """How many clients' sockets are in which state."""
        return Counter(s.state for s in self._streams if s is not None and s.client != OWN_CLIENT)

    @staticmethod
    def _forever(loop):  # type: ignore[no-untyped-def]
        while True:
            try:
                loop()
            except Exception:
                # A bug must cost one log line and one turn, not every stream of the worker.
                logger.exception("%s failed; it goes on", loop.__name__)
                gevent.sleep(0.05)

    # ── taking over ───────────────────────────────────────────────────────────────────────────────────────

    def adopt(self, stream: Stream, fd: int) -> None:
        """Own this descriptor from now on. The stream is opening and has been served through its cursor; what lies
        between that and its group's position is sent from here."""
        transport.prepare(fd, self._settings.sse_write_timeout * transport.USER_TIMEOUT_FACTOR)
        stream.fd = fd
        if fd >= len(self._streams):
            self._streams.extend([None] * (fd + 64 - len(self._streams)))
        self._streams[fd] = stream
        self.count += 1
        self.own += stream.client == OWN_CLIENT
        self._poller.add(fd)
        stream.become(REPLAYING)
        stream.backlog = Backlog(monotonic())
        self._backlogged.add(stream)
        if self._drain_began and stream.client != OWN_CLIENT:
            self._drain.append(stream)  # its request was under way when the drain began: it is the next to end
        self._advance(stream)

    # ── passes ────────────────────────────────────────────────────────────────────────────────────────────

    def _run_passes(self) -> None:
        dirty = self.hub.dirty
        self._work.wait()
        self._work.clear()
        self._slice_ends = perf_counter() + PASS_SLICE
        self._breathed = 0.0
        began = perf_counter()
        while dirty:
            group = dirty.popleft()
            group.dirty = False
            self._pass(group)
            if perf_counter() > self._slice_ends:
                self._breathe()
        took = perf_counter() - began - self._breathed
        if self._work.is_set():
            # Events arrived during the pass: there is load. Without it a pass begins at once.
            gevent.sleep(min(took * GAP_SHARE, GAP_MOST))

    def _pass(self, group: Group) -> None:
        frames = group.pending
        if not frames:
            self._run_deferred(group)
            return
        began = perf_counter()
        size = 0
        for count, frame in enumerate(frames, 1):
            size += len(frame.wire)
            if size >= MAX_CHUNK_BYTES and count < len(frames):
                group.pending = frames[count:]
                frames = frames[:count]
                group.dirty = True
                self.hub.dirty.append(group)
                break
        else:
            group.pending = []
        events = len(frames)
        body = frames[0].wire if events == 1 else b"".join([frame.wire for frame in frames])
        chunk = b"%x\r\n%b\r\n" % (len(body), body)
        before, through = frames[0].position - 1, frames[-1].position
        group.events += events
        group.bytes += len(body)
        group.last_sent = monotonic()
        group.passing = True
        self._write_all(group, chunk, body, events, before, through)
        group.passing = False
        ended = time.time()
        if group.subscription.channels.isdisjoint(INJECTED_CHANNELS):
            for frame in frames:
                self._stats.delivery.observe(ended - (frame.position >> SEQUENCE_BITS) / 1000)
        self._stats.passes.observe(perf_counter() - began)
        self._run_deferred(group)

    def _write_all(
        self, group: Group, chunk: bytes, body: bytes, events: int, before: int, through: int
    ) -> None:
        """Write the chunk to each live stream. The loop of this module: about 20 bytecodes beside the system call."""
        write = os.write
        chunk_size = len(chunk)
        body_size = len(body)
        until_clock = CLOCK_EVERY
        done = 0
        for stream in group.live.copy():
            # The pass yields, so a stream of this copy may have left, and even come back, before its turn.
            if stream.state is not LIVE:
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
                # The group's counts have this chunk already, the stream has not got it.
                stream.events -= events
                stream.bytes -= body_size
                self.close(stream, _reason_of(error))
            until_clock -= 1
            if not until_clock:
                until_clock = CLOCK_EVERY
                if perf_counter() > self._slice_ends:
                    self._breathe()
        if group.subscription.channels.isdisjoint(INJECTED_CHANNELS):
            self._stats.delivered += events * done
            self._stats.bytes_sent += body_size * done

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
        self._leave_live(stream, cursor, LAGGING, rest)
        if counted:
            self._stats.delivered += events
            self._stats.bytes_sent += size
        else:
            # The group's counts have this chunk already, the stream has not got it.
            stream.events -= events
            stream.bytes -= size
        self._poller.want_write(stream.fd)

    def _leave_live(self, stream: Stream, cursor: int, state: str, rest: memoryview | bytes = b"") -> None:
        stream.group.remove_live(stream)
        stream.become(state)
        stream.cursor = cursor
        stream.backlog = Backlog(monotonic(), rest)
        self._backlogged.add(stream)

    def _run_deferred(self, group: Group) -> None:
        if group.deferred:
            waiting, group.deferred = group.deferred, []
            for action in waiting:
                action()

    # ── catching up ───────────────────────────────────────────────────────────────────────────────────────

    def _advance(self, stream: Stream) -> None:
        """Send a stream with a backlog as much as its socket takes: rest, pages, end; or make it live."""
        backlog = stream.backlog
        if backlog is None or backlog.reading or stream.state is LINGERING:
            return
        group, window = stream.group, self.hub.window
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
                        group.deferred.append(lambda: self._advance(stream))
                        return
                    else:
                        self._make_live(stream)
                        return
                elif stream.cursor > target:
                    # It has seen what its group is still to be sent: it waits for that pass.
                    group.deferred.append(lambda: self._advance(stream))
                    return
                elif not pages:
                    # A fast reader with much to catch up on takes turns with the others: the poller reports it again.
                    self._poller.want_write(stream.fd)
                    return
                elif stream.cursor >= window.floor:
                    pages -= 1
                    subscription = group.subscription
                    page = window.read(
                        subscription.channels, subscription.types, stream.cursor, target, MAX_CHUNK_BYTES // 4
                    )
                    self._queue_page(stream, backlog, page.frames, page.position)
                else:
                    backlog.reading = True
                    self._want_log.append(stream)
                    self._log_work.set()
                    return
        except OSError as error:
            self.close(stream, _reason_of(error))

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
        self._poller.want_write(stream.fd)
        return False

    def _queue_page(self, stream: Stream, backlog: Backlog, frames: list, position: int) -> None:  # type: ignore[type-arg]
        stream.cursor = position
        if frames:
            body = b"".join([frame.wire for frame in frames])
            backlog.rest = b"%x\r\n%b\r\n" % (len(body), body) if stream.chunked else body
            stream.events += len(frames)
            stream.bytes += len(body)
            self._stats.replayed += len(frames)
            self._stats.delivered += len(frames)
            self._stats.bytes_sent += len(body)

    def _make_live(self, stream: Stream) -> None:
        stream.backlog = None
        self._backlogged.discard(stream)
        if stream.state is LAGGING:
            self._poller.unwant_write(stream.fd)
        stream.become(LIVE)
        stream.group.add_live(stream)

    def _run_log_reader(self) -> None:
        while not self._want_log:
            self._log_work.clear()
            self._log_work.wait()
        stream = self._want_log.popleft()
        backlog = stream.backlog
        if backlog is None or stream.state is CLOSED:
            return
        target = stream.group.position(self.hub.window.position)
        try:
            page = self.hub.read_page(stream.group.subscription, stream.cursor, target)
        except FellBehind:
            self.close(stream, "fell-behind")
            return
        except LogError:
            # The stream stays, with what it has; the log may come back before its write time-out.
            gevent.sleep(0.25)
            self._want_log.append(stream)
            return
        if stream.state is not CLOSED:
            backlog.reading = False
            backlog.progress_at = monotonic()  # waiting for the log was not the client's fault
            self._queue_page(stream, backlog, page.frames, page.position)
            self._advance(stream)

    # ── ends ──────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, stream: Stream, reason: str) -> None:
        """End a stream cleanly: all that it is owed, a ``retry:``, the terminating chunk."""
        if stream.state is CLOSED or (stream.backlog is not None and stream.backlog.end is not None):
            return
        if stream.group.passing:
            # Only the pass knows whether it has had the chunk.
            stream.group.deferred.append(lambda: self.end(stream, reason))
            return
        if stream.state is LIVE:
            self._leave_live(stream, stream.group.position(self.hub.window.position), ENDING)
        else:
            stream.become(ENDING)
        assert stream.backlog is not None
        stream.backlog.end = reason
        # Fixed now: under a publisher that never rests, a slow reader would chase the tail and not end.
        stream.backlog.owed = stream.group.position(self.hub.window.position)
        self._advance(stream)

    def _end_live(self) -> None:
        """The hub was overtaken by the log's retention: what follows is not for those who are live now. Those who lag
        find it out when they read on."""
        for stream in self._streams:
            if stream is not None and stream.state is LIVE and stream.client != OWN_CLIENT:
                self.end(stream, "fell-behind")

    def _let_all_go(self) -> None:
        """The log was replaced: no cursor means anything, so nothing more can be owed. Live ones end cleanly."""
        for stream in self._streams:
            if stream is not None and stream.client != OWN_CLIENT:
                if stream.state is LIVE:
                    self.end(stream, "replaced")
                elif stream.state is not LINGERING:
                    self.close(stream, "replaced")

    def _make_final(self, stream: Stream, backlog: Backlog) -> None:
        retry = retry_block(spread_retry(self._settings.sse_retry))
        backlog.rest = b"%x\r\n%b\r\n" % (len(retry), retry) + END_CHUNK if stream.chunked else retry
        backlog.final = True

    def _linger(self, stream: Stream) -> None:
        stream.become(LINGERING)
        assert stream.backlog is not None
        stream.backlog.progress_at = monotonic()
        transport.shut_down(stream.fd)

    def close(self, stream: Stream, reason: str) -> None:
        """Let go of a stream's descriptor, now. Idempotent."""
        if stream.state is CLOSED:
            return
        if stream.state is LIVE:
            stream.group.remove_live(stream)
        elif stream.backlog is not None and stream.backlog.final and not stream.backlog.rest:
            reason = stream.backlog.end or reason
        stream.become(CLOSED)
        stream.backlog = None
        self._backlogged.discard(stream)
        fd, stream.fd = stream.fd, -1
        self._streams[fd] = None
        self.count -= 1
        self.own -= stream.client == OWN_CLIENT
        os.close(fd)  # leaves the epoll set by itself
        self.hub.closed(stream, reason)

    def drain(self, window: float) -> None:
        """End every stream, spread evenly over ``window`` seconds (0 = at once)."""
        streams = [stream for stream in self._streams if stream is not None and stream.client != OWN_CLIENT]
        random.shuffle(streams)
        self._drain = streams
        self._drain_total = len(streams)
        self._drain_window = window
        self._drain_began = monotonic()
        self._drain_due(self._drain_began)

    def _drain_due(self, now: float) -> None:
        if not self._drain:
            return
        share = (now - self._drain_began) / self._drain_window if self._drain_window > 0 else 1.0
        keep = self._drain_total - int(self._drain_total * min(share, 1.0))
        while len(self._drain) > keep:
            self.end(self._drain.pop(), "drain")

    # ── the poller ────────────────────────────────────────────────────────────────────────────────────────

    def _run_poller(self) -> None:
        loop = gevent.get_hub()
        watcher = loop.loop.io(self._poller.fileno(), 1)
        try:
            while True:
                loop.wait(watcher)
                # Looked up now: while others run, a descriptor may be closed and come back as another stream's.
                ready = [(self._streams[fd], mask) for fd, mask in self._poller.poll()]
                slice_ends = perf_counter() + PASS_SLICE
                for stream, mask in ready:
                    if stream is not None and stream.state is not CLOSED:
                        self._on_socket(stream, mask)
                    if perf_counter() > slice_ends:
                        breathe()
                        slice_ends = perf_counter() + PASS_SLICE
        finally:
            watcher.close()

    def _on_socket(self, stream: Stream, mask: int) -> None:
        try:
            if mask & transport.HANG_UP:
                # A reset shuts both sides down, too: only the error tells it from a client that closed.
                self.close(stream, "reset" if mask & transport.ERROR else "client")
                return
            gone = bool(mask & transport.PEER_CLOSED)
            if mask & transport.READABLE and not gone:
                gone = transport.discard_input(stream.fd)
            if gone:
                self.close(stream, "client")
            elif mask & transport.WRITABLE:
                self._advance(stream)
        except transport.Flooded:
            self.close(stream, "flooded")
        except OSError as error:
            self.close(stream, _reason_of(error))

    # ── the ticker ────────────────────────────────────────────────────────────────────────────────────────

    def _run_ticker(self) -> None:
        last = monotonic()
        while True:
            gevent.sleep(TICK)
            now = monotonic()
            self._sweep(now, now - last)
            self._time_out(now)
            self._drain_due(now)
            last = now

    def _sweep(self, now: float, elapsed: float) -> None:
        """Look at the next part of all streams: leases, and heartbeats for those that have heard nothing lately.

        Going round the table of descriptors spreads the heartbeats over the interval and needs no timer per stream.
        """
        table = self._streams
        heartbeat = self._settings.sse_heartbeat
        early = min(SWEEP, heartbeat / 4) if heartbeat else SWEEP
        steps = min(len(table), int(len(table) * elapsed / early) + 1)
        # A group's heartbeat is the same for all its streams of this sweep step.
        self._heartbeats.clear()
        for _ in range(steps):
            if self._sweep_at >= len(table):
                self._sweep_at = 0
            stream = table[self._sweep_at]
            self._sweep_at += 1
            if stream is None:
                continue
            if stream.ends_at <= now and stream.state in (REPLAYING, LIVE, LAGGING):
                self.end(stream, end_reason(stream, self._settings.sse_max_stream_age))
            elif heartbeat and stream.state is LIVE and not stream.group.passing:
                silent = now - max(stream.group.last_sent, stream.beat)
                if silent + early * 1.1 >= heartbeat:
                    self._send_heartbeat(stream, now)

    def _send_heartbeat(self, stream: Stream, now: float) -> None:
        group = stream.group
        both = self._heartbeats.get(group)
        if both is None:
            position = group.position(self.hub.window.position)
            body = heartbeat_block(position, time.time_ns() // 1_000_000)
            both = self._heartbeats[group] = (body, b"%x\r\n%b\r\n" % (len(body), body))
        data = both[stream.chunked]
        stream.beat = now
        try:
            sent = os.write(stream.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.close(stream, _reason_of(error))
            return
        if sent < len(data):
            position = group.position(self.hub.window.position)
            self._leave_live(stream, position, LAGGING, memoryview(data)[sent:] if sent else b"")
            self._poller.want_write(stream.fd)

    def _time_out(self, now: float) -> None:
        limit = self._settings.sse_write_timeout
        for stream in list(self._backlogged):
            backlog = stream.backlog
            if backlog is None:
                continue
            waited = now - backlog.progress_at
            if stream.state is LINGERING:
                if waited > LINGER:
                    self.close(stream, "drain")
            elif limit and waited > limit / 2 and not backlog.reading and (backlog.rest or stream.state is LAGGING):
                # (A socket that took nothing at all of the last chunk leaves a stream lagging without a rest.)
                # A slow reader's kernel takes bytes long before ours reports room for more: that is progress, too.
                queued = transport.unacknowledged(stream.fd)
                if queued < backlog.queued:
                    backlog.progress_at = now
                elif waited > limit:
                    self.close(stream, "write-timeout")
                    continue
                backlog.queued = queued


def _reason_of(error: OSError) -> str:
    return "client" if isinstance(error, BrokenPipeError) else "reset"
