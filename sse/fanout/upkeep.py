"""Upkeep: what time asks of sockets that were taken over.

Heartbeats and leases by a sweep over the table of descriptors, which spreads them over the interval and needs no timer
per stream; write time-outs of those that have trouble; the drain's schedule.
"""

from __future__ import annotations

import os
import random
import time
from functools import partial
from time import monotonic

import gevent

from ..events.chunked import encode_chunk
from ..events.model import heartbeat_block
from ..streams.group import Group
from ..streams.stream import OWN_CLIENT, Backlog, CloseReason, State, Stream
from . import epoll as transport
from .catchup import CatchUp
from .sockets import Sockets, reason_of

# After its end a stream's socket is kept this long for the peer's FIN.
LINGER = 1.0
TICK = 0.05  # seconds; the drain's grain, and the finest heartbeat
SWEEP = 1.0  # seconds for one round over all streams; heartbeats come up to this much early


class Upkeep:
    """See the module's text."""

    def __init__(self, sockets: Sockets, catchup: CatchUp) -> None:
        self._sockets = sockets
        self._catchup = catchup
        self._hub = sockets.hub
        self._settings = sockets.settings
        self._sweep_at = 0
        self._heartbeats: dict[Group, tuple[bytes, bytes]] = {}
        self._drain: list[Stream] = []
        self._drain_began = 0.0
        self._drain_window = 0.0
        self._drain_total = 0

    def run(self) -> None:
        """Look after everything, for ever."""
        last = monotonic()
        while True:
            gevent.sleep(TICK)
            now = monotonic()
            self.turn(now, now - last)
            last = now

    def turn(self, now: float, elapsed: float) -> None:
        """Do all three duties. None of them waits for another one to work."""
        for name, duty in (
            ("heartbeats and leases", partial(self.sweep, now, elapsed)),
            ("write time-outs", partial(self._time_out, now)),
            ("the drain", partial(self._drain_due, now)),
        ):
            try:
                duty()
            except Exception:
                self._sockets.failures.report(f"upkeep of streams failed at {name}; it goes on")

    def joined(self, stream: Stream) -> None:
        """A stream whose request was under way when the drain began is the next to end."""
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
        """Look at the next part of all streams: leases, and heartbeats for those that have heard nothing lately.

        Going round the table of descriptors spreads the heartbeats over the interval and needs no timer per stream.
        """
        table = self._sockets.streams
        heartbeat = self._settings.sse_heartbeat
        early = min(SWEEP, heartbeat / 4)
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
            if stream.ends_at <= now and stream.state in (State.REPLAYING, State.LIVE, State.LAGGING):
                self._catchup.end(stream, stream.ends_as)
            elif stream.state is State.LIVE and not stream.group.passing:
                silent = now - max(stream.group.last_sent, stream.beat)
                if silent + early * 1.1 >= heartbeat:
                    self._send_heartbeat(stream, now)

    def _send_heartbeat(self, stream: Stream, now: float) -> None:
        group = stream.group
        both = self._heartbeats.get(group)
        if both is None:
            position = group.position(self._hub.window.position)
            body = heartbeat_block(position, time.time_ns() // 1_000_000)
            both = self._heartbeats[group] = (body, encode_chunk(body))
        data = both[stream.chunked]
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
            self._sockets.leave_live(stream, position, State.LAGGING, memoryview(data)[sent:] if sent else b"")
            self._sockets.poller.want_write(stream.fd)

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
            # (A socket that took nothing at all of the last chunk leaves a stream lagging without a rest.)
            # A slow reader's kernel takes bytes long before ours reports room for more: that is progress, too.
            queued = transport.unacknowledged(stream.fd)
            if queued < backlog.queued:
                backlog.progress_at = now
            elif waited > limit:
                self._sockets.close(stream, CloseReason.WRITE_TIMEOUT)
                return
            backlog.queued = queued
