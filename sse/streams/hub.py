"""The hub: one per worker. It follows the log from its own position and hands what comes to the groups.

    log ──follow──▶ tailer ──▶ window ──▶ groups ──▶ fan-out (sockets that were taken over)
                                               └───▶ wakes generator streams, which pull from the window

Live delivery, replay and resume are one mechanism, "read after position"; what makes the seam between replay and
live safe is one number, the *group's position*: a stream is live exactly when it has been served through it.

Threads. The tailer and the hub's duties are threads (greenlets under gevent), each with one of its own: the canary,
by which readiness is judged, must not wait for a disk, as retention does, nor for what a report asks. ``lock`` guards
window, groups and pending lists against the threads of generator streams; the fan-out runs in the tailer's own event
loop and, as it never switches between reading and changing them, needs no lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from ..events.batch import encode_frames
from ..events.model import Frame, Record, heartbeat_block
from ..events.names import CANARY_CHANNEL, STATS_CHANNEL
from ..log import Log
from ..runtime.cooperation import repeat
from ..settings import Settings
from .deliveries import Delivered, Deliveries
from .group import Group, Subscription
from .replay import Replay
from .retention import TRIM_INTERVAL, Retention
from .stats import Stats
from .stream import OWN_CLIENT, CloseReason, State, Stream
from .tailer import Tailer
from .window import Window, matches

logger = logging.getLogger("headwater.hub")

FIRST_CANARY = 0.05  # seconds between looks for the first subscriber: a start waits for its canary
CANARY_INTERVAL = 1.0  # seconds between two canary heartbeats; /readyz tolerates five
# A large batch enters the worker in steps, between which the event loop is let run: of so many events at most, given so
# many times to a group. Each takes about 2 ms.
RECORDS_PER_STEP = 500
GIVEN_PER_STEP = 10_000
REPORT_INTERVAL = 1.0  # seconds between two reports to the console


class Pulling(Protocol):
    """A generator stream, as its hub sees it."""

    client: str
    state: State

    def wake(self) -> None: ...

    def end(self, reason: CloseReason) -> None: ...


class SocketStreams(Protocol):
    """The streams whose sockets a worker has taken over, as their hub sees them."""

    def wake(self) -> None:
        """``hub.dirty`` has something."""

    def adopt(self, stream: Stream, fd: int) -> None:
        """Serve this stream on its socket's descriptor, and own both from now on."""

    def counts(self) -> Counter[str]:
        """Return the number of streams by state."""

    def end_live(self) -> None:
        """End every live stream where it is: the log has nothing that follows."""

    def let_all_go(self) -> None:
        """Let go of every stream: its cursor means nothing in the log that is there now."""

    def busy_until(self) -> float:
        """Return until when (monotonic seconds) nobody writes; what arrives meanwhile is read in one go afterwards."""


class Status(NamedTuple):
    """What health may know of a worker's hub. Seconds, positions, streams."""

    started: bool
    draining: bool
    tail_age: float
    position: int
    streams: dict[str, int]
    hub_alive: bool
    append_failed_at: float = 0.0


class Hub:
    """See the module's text.

    log: the log to follow; settings: limits and intervals; on_close: called once per stream that ended, with its
    reason (the access log); site_of: the site that an address belongs to, by which a limit counts it; report: makes
    the block that those who listen to ``_stats`` are sent once a second; on_delivered: told of each traced delivery.
    A worker that takes sockets over calls :meth:`connect`; without that all streams pull.
    """

    def __init__(
        self,
        log: Log,
        settings: Settings,
        stats: Stats,
        *,
        on_close: Callable[[Stream, CloseReason, float], None] | None = None,
        site_of: Callable[[str], str] = str,
        report: Callable[[Hub], bytes] | None = None,
        on_delivered: Callable[[Delivered], None] | None = None,
    ) -> None:
        self.log = log
        self.settings = settings
        self.stats = stats
        self.window = Window(settings.sse_window_bytes)
        self.lock = threading.RLock()
        self.groups: dict[Subscription, Group] = {}
        self.dirty: deque[Group] = deque()
        self.sockets: SocketStreams | None = None
        self.deliveries = Deliveries(lambda: settings.sse_trace_lines, on_delivered)
        self.streams = 0
        self.pulling: set[Pulling] = set()
        self.draining = False
        self._by_channel: dict[str, dict[Group, None]] = {}
        # All streams, by the client's address; while there is a limit, by that of its site.
        self._per_client: Counter[str] = Counter()
        self._on_close = on_close
        self._site_of = site_of
        self._report = report
        self._pull_limit: int | None = None
        self._stop = threading.Event()
        self.advanced = threading.Condition(self.lock)
        self.retention = Retention(log, settings)
        self.tailer = Tailer(self, self._stop)
        self.replay = Replay(log, self.window, self.advanced, settings, stats)
        self._threads: list[threading.Thread] = []
        settings.on_change(self._prepare)

    def connect(self, sockets: SocketStreams) -> None:
        """Give the streams that can be taken over to a worker's fan-out."""
        self.sockets = sockets

    def limit_pulling(self, streams: int) -> None:
        """Admit at most so many streams, where each holds a thread of the server."""
        self._pull_limit = streams

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to follow the log. Idempotent; to be called after a worker has forked."""
        with self.lock:
            if self._threads:
                return
            self._threads.append(threading.Thread(target=self.tailer.run, name="sse-tailer", daemon=True))
            for name, duty, first in (
                ("canary", self._send_canary, FIRST_CANARY),
                ("report", self._send_report, REPORT_INTERVAL),
                ("trimming", self.retention.bite, TRIM_INTERVAL),
            ):
                work = partial(repeat, name, duty, self._stop, logger, first=first)
                self._threads.append(threading.Thread(target=work, name=f"sse-{name}", daemon=True))
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """Send new streams away from now on; the worker ends those that there are."""
        self.draining = True

    def stop(self) -> None:
        """Stop following. Streams are left as they are."""
        self._stop.set()
        self.log.wake()
        for thread in self._threads:
            thread.join(2.0)

    def wait_ready(self, timeout: float) -> bool:
        """Wait until the log was reached and the window is warm; False when that takes longer than ``timeout`` s."""
        return self.tailer.ready.wait(timeout)

    def status(self) -> Status:
        counts: Counter[str] = Counter(stream.state for stream in list(self.pulling) if stream.client != OWN_CLIENT)
        if self.sockets is not None:
            counts += self.sockets.counts()
        return Status(
            started=self.tailer.ready.is_set(),
            draining=self.draining,
            tail_age=time.monotonic() - self.tailer.answered_at,
            position=self.window.position,
            streams=dict(counts),
            hub_alive=all(thread.is_alive() for thread in self._threads) and bool(self._threads),
            append_failed_at=self.stats.append_failed_at,
        )

    # ── from the tailer ───────────────────────────────────────────────────────────────────────────────────

    def replaced(self) -> None:
        """What this worker has read is not what the log holds: its streams end, and are told so when they resume."""
        if self.sockets is not None:
            self.sockets.let_all_go()
        with self.lock:
            for group in self.groups.values():
                group.pending = []
            for stream in self.pulling:
                stream.end(CloseReason.REPLACED)

    def busy_until(self) -> float:
        """Return until when (monotonic seconds) nobody is there to write; 0.0 where that cannot be said."""
        return 0.0 if self.sockets is None else self.sockets.busy_until()

    def overtaken(self, trimmed: int) -> None:
        """The log has nothing between the window and ``trimmed``: live streams end where they are."""
        with self.lock:
            self._end_live()
            self.window.reset(trimmed)
            self._wake_pulling()

    def _end_live(self) -> None:
        if self.sockets is not None:
            self.sockets.end_live()
        for group in self.groups.values():
            group.pending = []

    def _wake_pulling(self) -> None:
        for stream in self.pulling:
            stream.wake()

    def step(self, records: list[Record], begin: int) -> int:
        """Where the step of a batch ends that begins here: what is dispatched at once.

        Threat: ten thousand streams with a channel of their own each, and one that they share, are ten thousand groups.
        """
        given = 0
        for index in range(begin, min(begin + RECORDS_PER_STEP, len(records))):
            given += len(self._by_channel.get(records[index].channel, ()))
            if given >= GIVEN_PER_STEP:
                return index + 1
        return min(begin + RECORDS_PER_STEP, len(records))

    def dispatch(self, records: list[Record]) -> None:
        """Take in what follows the window's position: encode once, remember, and give to every group concerned."""
        frames = encode_frames(records)
        with self.lock:
            self.window.extend(frames)
            try:
                self._give_all(frames)
            except Exception:
                # Some streams lack what the window has: they end where they are, and read it when they resume.
                self._end_live()
                self._wake_pulling()
                raise
            finally:
                self.advanced.notify_all()
                if self.dirty and self.sockets is not None:
                    self.sockets.wake()
            if self.deliveries.reading:
                self.deliveries.mark(frames, self._by_channel)

    def _give_all(self, frames: list[Frame]) -> None:
        for frame in frames:
            groups = self._by_channel.get(frame.channel)
            if groups:
                for group in groups:
                    if matches(frame, group.subscription.types):
                        self._give(group, frame)

    def _give(self, group: Group, frame: Frame) -> None:
        # What is pending has no holes: a stream may join at the group's position after the last live one has gone, and
        # before the pass that is owed.
        if group.live or group.pending:
            group.pending.append(frame)
            if not group.dirty:
                group.dirty = True
                self.dirty.append(group)
        for waiter in group.waiters:
            waiter.wake()

    def inject(self, channel: str, wire: bytes) -> None:
        """Send a block that is in no log to everyone who listens to a reserved channel now (canary, statistics)."""
        with self.lock:
            for group in self._by_channel.get(channel, ()):
                if group.live:
                    group.pending.append(Frame(self.window.position, channel, None, wire))
                    if not group.dirty:
                        group.dirty = True
                        self.dirty.append(group)
                for waiter in group.waiters:
                    waiter.push(wire)
        if self.dirty and self.sockets is not None:
            self.sockets.wake()

    # ── duties: one turn of each; they return the seconds until the next one ──────────────────────────────────

    def _send_canary(self) -> float:
        if CANARY_CHANNEL not in self._by_channel:
            return FIRST_CANARY
        self.inject(CANARY_CHANNEL, heartbeat_block(self.window.position, time.time_ns() // 1_000_000))
        return CANARY_INTERVAL

    def _send_report(self) -> float:
        self.deliveries.flush()
        if self._report is not None and STATS_CHANNEL in self._by_channel:
            self.inject(STATS_CHANNEL, self._report(self))
        return REPORT_INTERVAL

    def _prepare(self, new: Settings) -> Callable[[], None]:
        """For new settings (`sse.settings.live`)."""
        limited = bool(new.sse_max_streams_per_ip) and not self.settings.sse_max_streams_per_ip

        def change() -> None:
            with self.lock:
                if limited:
                    # They were counted by address; a limit is a site's.
                    by_site: Counter[str] = Counter()
                    for client, count in self._per_client.items():
                        by_site[self._site_of(client)] += count
                    self._per_client = by_site
                self._wake_pulling()  # a heartbeat may be due sooner now

        return change

    # ── opening a stream ──────────────────────────────────────────────────────────────────────────────────

    def admit(self, client: str, *, count: bool = True) -> str | None:
        """Count one more stream (or only ask); or say what forbids it: ``streams``, ``threads``, ``streams-per-ip``,
        ``drain``."""
        with self.lock:
            if self.draining:
                reason = "drain"
            elif self.streams >= self.settings.sse_max_streams:
                reason = "streams"
            elif self._pull_limit is not None and self.streams >= self._pull_limit:
                reason = "threads"
            elif 0 < self.settings.sse_max_streams_per_ip <= self._per_client[client]:
                reason = "streams-per-ip"
            else:
                if count:
                    self.streams += 1
                    self._per_client[client] += 1
                return None
        self.stats.refused[reason] += 1
        return reason

    def join(self, subscription: Subscription) -> Group:
        """The group of this subscription, with one more member."""
        with self.lock:
            group = self.groups.get(subscription)
            if group is None:
                group = self.groups[subscription] = Group(subscription, time.monotonic())
                for channel in subscription.channels:
                    self._by_channel.setdefault(channel, {})[group] = None
            group.members += 1
            return group

    def closed(self, stream: Stream, reason: CloseReason) -> None:
        """Account for a stream that has ended, and log it."""
        self.leave(stream)
        if stream.client == OWN_CLIENT:
            return
        self.stats.closed[reason] += 1
        if self._on_close is not None:
            self._on_close(stream, reason, time.monotonic())

    def leave(self, stream: Stream) -> None:
        """One stream less; its group is forgotten with its last member."""
        with self.lock:
            group = stream.group
            group.members -= 1
            if group.members == 0:
                del self.groups[group.subscription]
                for channel in group.subscription.channels:
                    others = self._by_channel[channel]
                    del others[group]
                    if not others:
                        del self._by_channel[channel]
            if stream.client == OWN_CLIENT:
                return
            self.streams -= 1
            client = stream.client
            if client not in self._per_client:
                client = self._site_of(client)  # it came when there was no limit for sites
            self._per_client[client] -= 1
            if self._per_client[client] <= 0:
                del self._per_client[client]
