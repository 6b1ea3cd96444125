"""The fan-out: owns the sockets that a worker took over, and runs what writes to them.

Theory of operation. Everything here runs in one gevent loop and waits only for that loop, so nothing changes between
two waits. Five kinds of greenlets share the work:

    passes    write new frames to live streams (:mod:`sse.fanout.passes`)
    poller    learns of hang-ups, input from peers, and sockets that have room again
    upkeep    heartbeats, leases, write time-outs, the drain (:mod:`sse.fanout.upkeep`)
    endings   end many streams at once (:mod:`sse.fanout.endings`)
    readers   read the log for streams that have missed more than the window holds (:mod:`sse.fanout.catchup`)

A short write makes one stream *lagging* (see :mod:`sse.streams.stream`): its backlog is the unsent rest of the shared
chunk, and catch-up brings it back. A new stream starts the same way, with an empty rest.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from time import monotonic, perf_counter

import gevent

from ..runtime.cooperation import breathe
from ..streams.group import Group
from ..streams.hub import Hub
from ..streams.stream import Backlog, CloseReason, State, Stream
from . import epoll
from .catchup import LOG_READERS, CatchUp
from .endings import Endings
from .passes import PASS_SLICE, Passes
from .sockets import Sockets, reason_of
from .upkeep import Upkeep

# After a failure a loop starts again after this many seconds.
AFTER_FAILURE = 0.05


class Fanout:
    """The fan-out of one hub's groups, made by the worker class. It runs in the event loop that calls :meth:`start`.

    It is the hub's :class:`~sse.streams.hub.SocketStreams`; methods without a docstring are described there.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.sockets = Sockets(hub)
        self.catchup = CatchUp(self.sockets)
        self.passes = Passes(self.sockets, self.catchup)
        self.upkeep = Upkeep(self.sockets, self.catchup, self.passes)
        self.endings = Endings(self.catchup)
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Start all greenlets."""
        self.hub.connect(self)
        loops: list[tuple[str, Callable[[], None]]] = [
            ("passes", self.passes.run),
            ("poller", self._run_poller),
            ("upkeep", self.upkeep.run),
            ("endings", self.endings.run),
            *[("log reader", self.catchup.read_log)] * LOG_READERS,
        ]
        self._greenlets = [gevent.spawn(self._for_ever, *loop) for loop in loops]

    def stop(self) -> None:
        """Stop at the worker's end: cut every stream that has not ended, and account for it."""
        gevent.killall(self._greenlets, timeout=1.0)
        for stream in self.sockets.clients():
            self.sockets.close(stream, CloseReason.CUT)

    def busy(self) -> int:
        """Return the number of clients' streams."""
        return self.sockets.count - self.sockets.own

    def wake(self) -> None:
        self.passes.wake()

    def counts(self) -> Counter[str]:
        return self.sockets.counts()

    def end_live(self) -> None:
        self.catchup.end_live()

    def let_all_go(self) -> None:
        self.catchup.let_all_go()

    def end_group(self, group: Group) -> None:
        if group.passing or group.position(self.hub.window.position) < group.end:
            group.deferred.append(partial(self.end_group, group))  # its end is still to be sent
        elif group.end:  # else its channel was erased meanwhile
            self.endings.end_group(group)

    def end_now(self, wanted: Callable[[Stream], bool], reason: CloseReason) -> None:
        self.endings.end_now(self.sockets.clients(), wanted, reason)

    def erase(self, groups: Collection[Group]) -> None:
        self.catchup.forget_page()
        self.passes.recall(groups)
        self.sockets.drop_rests(groups)
        for group in groups:
            if group.compression is not None:
                group.compression.close()

    def await_round(self) -> None:
        self.passes.reading.wait()

    def drain(self, window: float) -> None:
        """End every stream, spread evenly over ``window`` seconds (0 = at once)."""
        self.upkeep.drain(window)

    def adopt(self, stream: Stream, fd: int) -> None:
        """Own this descriptor from now on. The stream is opening and has been served through its cursor; the fan-out
        sends what lies between that and its group's position."""
        try:
            self.sockets.add(stream, fd)
        except Exception:
            self.sockets.failures.report("could not take over a stream's socket; it is closed")
            os.close(fd)
            stream.become(State.CLOSED)
            self.hub.closed(stream, CloseReason.ERROR)
            return
        stream.become(State.REPLAYING)
        now = monotonic()
        stream.backlog = stream.backlog or Backlog(now)
        stream.backlog.progress_at = now
        self.sockets.backlogged.add(stream)
        self.upkeep.joined(stream)
        if (reason := self.hub.control.why_not(stream)) is not None:
            self.catchup.end_now(stream, reason)
        else:
            self.catchup.advance(stream)

    def _for_ever(self, name: str, loop: Callable[[], None]) -> None:
        """Run a loop. A bug in it must cost a log line and a turn, not every stream of the worker."""
        while True:
            try:
                loop()
            except Exception:
                self.sockets.failures.report(f"the fan-out's {name} failed; it goes on")
                gevent.sleep(AFTER_FAILURE)

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
        """Handle what has happened on the sockets; lets the loop run after each PASS_SLICE."""
        # Look streams up before anything else runs: a descriptor may be closed and reused by another stream meanwhile.
        ready = [(self.sockets.streams[fd], mask) for fd, mask in self.sockets.poller.poll()]
        slice_ends = perf_counter() + PASS_SLICE
        for stream, mask in ready:
            if stream is not None and stream.state is not State.CLOSED:
                try:
                    self.on_socket(stream, mask)
                except Exception:
                    self.sockets.fail(stream)  # epoll reports the other streams only once: handle them, too
            if perf_counter() > slice_ends:
                breathe()
                slice_ends = perf_counter() + PASS_SLICE

    def on_socket(self, stream: Stream, mask: int) -> None:
        """Handle one stream's events, a mask as epoll reports it."""
        try:
            if mask & epoll.HANG_UP:
                # A reset, too, shuts both sides down: only ERROR tells it from a client that closed.
                self.sockets.close(stream, CloseReason.RESET if mask & epoll.ERROR else CloseReason.CLIENT)
                return
            gone = bool(mask & epoll.PEER_CLOSED)
            if mask & epoll.READABLE and not gone:
                gone = epoll.discard_input(stream.fd)
            if gone:
                self.sockets.close(stream, CloseReason.CLIENT)
            elif mask & epoll.WRITABLE:
                self.catchup.advance(stream)
        except epoll.Flooded:
            self.sockets.close(stream, CloseReason.FLOODED)
        except OSError as error:
            self.sockets.close(stream, reason_of(error))
