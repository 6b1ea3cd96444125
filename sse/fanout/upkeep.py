"""Upkeep: what falls due on sockets that were taken over.

A sweep over the table of descriptors sends heartbeats and ends leases: this spreads them over the interval and needs no
timer per stream. Write time-outs look only at streams with a backlog. The drain has its own schedule.
"""

from __future__ import annotations

import os
import random
import time
from functools import partial
from time import monotonic

import gevent

from ..streams.group import Group
from ..streams.stream import OWN_CLIENT, Backlog, CloseReason, State, Stream
from . import epoll
from .catchup import CatchUp
from .chunk import Chunk
from .passes import Passes
from .sockets import Sockets, reason_of

LINGER = 1.0  # seconds to wait for the peer's FIN after a stream's end
TICK = 0.05  # seconds between two turns; the resolution of drains and heartbeats
SWEEP = 1.0  # seconds for one sweep over all streams; a heartbeat may be sent this much early


class Upkeep:
    """Heartbeats, leases, write time-outs and the drain of one table of sockets."""

    def __init__(self, sockets: Sockets, catchup: CatchUp, passes: Passes) -> None:
        self._passes = passes
        self._sockets = sockets
        self._catchup = catchup
        self._hub = sockets.hub
        self._settings = sockets.settings
        self._sweep_at = 0
        self._heartbeats: dict[Group, Chunk] = {}
        self._drain: list[Stream] = []
        self._drain_began = 0.0
        self._drain_window = 0.0
        self._drain_total = 0

    def run(self) -> None:
        """Take a turn each TICK, for ever."""
        last = monotonic()
        while True:
            gevent.sleep(TICK)
            now = monotonic()
            self.turn(now, now - last)
            last = now

    def turn(self, now: float, elapsed: float) -> None:
        """Do all three duties; one that fails does not keep the others from working. ``now``: monotonic; ``elapsed``:
        seconds since the last turn."""
        for name, duty in (
            ("heartbeats and leases", partial(self.sweep, now, elapsed)),
            ("write time-outs", partial(self._time_out, now)),
            ("the drain", partial(self._drain_due, now)),
        ):
            try:
                duty()
            except Exception:
                self._sockets.failures.report(f"upkeep of {name} failed; it goes on")

    def joined(self, stream: Stream) -> None:
        """End a stream next if the drain has begun: its request was already under way then."""
        if self._drain_began and stream.client != OWN_CLIENT:
            self._drain.append(stream)

    def drain(self, window: float) -> None:
        """End every stream, spread evenly over ``window`` seconds (0 = at once)."""
        streams = self._sockets.clients()
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
            self._catchup.end(self._drain.pop(), CloseReason.DRAIN)

    def sweep(self, now: float, elapsed: float) -> None:
        """Look at the next part of the table: end leases that are over, send heartbeats to silent streams.

        One that is sent gzip gets a heartbeat together with its group, because its own would end the sharing.
        """
        self._hub.groups.epochs.end_idle(now)
        table = self._sockets.streams
        heartbeat = self._settings.sse_heartbeat
        early = min(SWEEP, heartbeat / 4)
        steps = min(len(table), int(len(table) * elapsed / early) + 1)
        # Within one step all streams of a group share a heartbeat.
        self._heartbeats.clear()
        for _ in range(steps):
            if self._sweep_at >= len(table):
                self._sweep_at = 0
            stream = table[self._sweep_at]
            self._sweep_at += 1
            if stream is None:
                continue
            if stream.ends_at <= now and stream.state in (State.REPLAYING, State.LIVE, State.LAGGING):
                self._catchup.end(stream, stream.ends_as)
            elif stream.state is State.LIVE and not stream.group.passing:
                silent = now - max(stream.group.last_sent, stream.beat)
                if silent + early * 1.1 >= heartbeat:
                    if stream.group.compression is None:
                        self._send_heartbeat(stream, now)
                    else:
                        self._passes.beat(stream.group)

    def _send_heartbeat(self, stream: Stream, now: float) -> None:
        group = stream.group
        chunk = self._heartbeats.get(group)
        if chunk is None:
            position = group.position(self._hub.window.position)
            body = group.form.heartbeat(position, time.time_ns() // 1_000_000)
            chunk = self._heartbeats[group] = Chunk.heartbeat(position, body, group)
        data = chunk.wires[stream.coding]
        stream.beat = now
        try:
            sent = os.write(stream.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._sockets.close(stream, reason_of(error))
            return
        if sent < len(data):
            position = group.position(self._hub.window.position)
            self._sockets.lag(stream, position, memoryview(data)[sent:] if sent else b"")

    def _time_out(self, now: float) -> None:
        for stream in list(self._sockets.backlogged):
            if (backlog := stream.backlog) is not None:
                try:
                    self._time_out_one(stream, backlog, now)
                except Exception:
                    self._sockets.fail(stream)

    def _time_out_one(self, stream: Stream, backlog: Backlog, now: float) -> None:
        limit = self._settings.sse_write_timeout
        waited = now - backlog.progress_at
        if stream.state is State.LINGERING:
            if waited > LINGER:
                self._sockets.close(stream, CloseReason.DRAIN)
        elif limit and waited > limit / 2 and not backlog.reading and (backlog.rest or stream.state is State.LAGGING):
            # (A stream lags without a rest if its socket took nothing of the last chunk.)
            # A slow reader acknowledges bytes long before our kernel reports room for more: that is progress, too.
            queued = epoll.unacknowledged(stream.fd)
            if queued < backlog.queued:
                backlog.progress_at = now
            elif waited > limit:
                self._sockets.close(stream, CloseReason.WRITE_TIMEOUT)
                return
            backlog.queued = queued
