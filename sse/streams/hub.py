"""The hub: one per worker. It follows the log from its own position and gives new events to the groups.

    log ──follow──▶ tailer ──▶ window ──▶ groups ──▶ fan-out (sockets taken over from their requests)
                                               └───▶ wakes generator streams, which pull from the window

Live delivery, replay and resume are one mechanism, "read after position". One number makes the seam between replay and
live safe, the *group's position*: a stream is live exactly when it has been sent everything through it.

Threads. The tailer and the hub's duties have a thread each (greenlets under gevent). ``lock`` guards window, groups and
pending lists against the threads of generator streams. The fan-out runs in the tailer's event loop and never switches
between reading and changing them, so it takes no lock.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import accumulate
from operator import itemgetter
from typing import Any, NamedTuple

from ..events.batch import encode_wanted
from ..events.markers import MARKERS
from ..events.model import Record
from ..events.wire import Frame
from ..log import Log
from ..settings import Settings
from .admission import Admission
from .control import Control
from .deliveries import Delivered, Deliveries
from .duties import Duties
from .ends import Ends
from .group import Group, Groups, Subscription
from .listeners import Counting, Listeners
from .replay import Replay
from .retention import Retention
from .serving import Pulling, SocketStreams
from .stats import Stats
from .stream import OWN_CLIENT, CloseReason, Stream
from .tailer import Tailer
from .window import Item, Window, matches

# A large batch enters the worker in steps, and the event loop runs between them. A step ends after this many events, or
# once its events were given to this many groups; both take about 2 ms.
RECORDS_PER_STEP = 500
GIVEN_PER_STEP = 10_000

_channel = itemgetter(1)  # a record's
_kind = itemgetter(2)  # a record's event type


class Status(NamedTuple):
    """What health may know of a worker's hub.

    tail_age          seconds since the log last answered
    position          through which the worker has read the log
    streams           number by state, without the worker's own
    append_failed_at  when the log last refused an append, monotonic seconds; 0.0 if it took the newest one
    runs              number of runs that have not ended
    """

    started: bool
    draining: bool
    tail_age: float
    position: int
    streams: dict[str, int]
    hub_alive: bool
    append_failed_at: float = 0.0
    runs: int = 0


class Hub:
    """See the module's text.

    log: the log to follow; settings: limits and intervals; on_close: called once for each stream that ended, with the
    reason and the time in monotonic seconds (access log); site_of: see :class:`Admission`; report: makes the block that
    is sent once a second on ``_stats``; on_delivered: told of each traced delivery; abandoned: asked once a second, and
    True stops the hub and closes its log, because the app is no longer there. A worker that takes sockets over calls
    :meth:`connect`; without it all streams pull.
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
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        self.log = log
        self.settings = settings
        self.stats = stats
        self.admission = Admission(settings, stats, site_of)
        self.window = Window(settings.sse_window_bytes)
        self.lock = threading.RLock()
        self.advanced = threading.Condition(self.lock)  # notified when the window has moved
        self.groups = Groups()
        self.dirty: deque[Group] = deque()  # groups that the fan-out must serve
        self.sockets: SocketStreams | None = None
        self.pulling: set[Pulling] = set()
        self.deliveries = Deliveries(lambda: settings.sse_trace_lines, on_delivered)
        self.retention = Retention(log, settings)
        self.replay = Replay(log, self.window, self.advanced, settings, stats, lambda: self.tailer.catch_up())
        self._abandoned = abandoned
        self.ends = Ends(log, self.window, self.replay, self.advanced)
        self.control = Control(self)
        self.counting = Counting(log, self.groups, self.lock)
        self._back: list[Callable[[], None]] = []
        self._on_close = on_close
        self._stop = threading.Event()
        self.tailer = Tailer(self, self._stop)
        self._duties = Duties(self, report and partial(report, self))
        self._threads: list[threading.Thread] = []
        settings.on_change(self._prepare)

    def connect(self, sockets: SocketStreams) -> None:
        """Give the streams that can be taken over to a worker's fan-out."""
        self.sockets = sockets

    def _prepare(self, new: Settings) -> Callable[[], None]:
        """Prepare for new settings (:mod:`sse.settings.live`): a heartbeat may be due sooner then."""

        def change() -> None:
            with self.lock:
                self._wake_pulling()

        return change

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to follow the log. Idempotent; to be called after a worker has forked."""
        with self.lock:
            if self._threads:
                return
            tailer = threading.Thread(target=self.tailer.run, name="sse-tailer", daemon=True)
            self._threads = [tailer, *self._duties.threads(self._stop)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop following, and end the generator streams. Those on sockets are the fan-out's."""
        self._stop.set()
        self.log.wake()
        with self.lock:
            for stream in self.pulling:
                stream.end(CloseReason.DRAIN)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(2.0)
        self.counting.drop()

    def stop_if_abandoned(self) -> None:
        """Stop, and close the log, if nobody can any more: the app was forgotten, as test suites do."""
        if self._abandoned():
            self.stop()
            self.log.close()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until the log was reached and the window is warm; False after ``timeout`` seconds."""
        return self.tailer.ready.wait(timeout)

    def status(self) -> Status:
        counts: Counter[str] = Counter(stream.state for stream in list(self.pulling) if stream.client != OWN_CLIENT)
        if self.sockets is not None:
            counts += self.sockets.counts()
        return Status(
            started=self.tailer.ready.is_set(),
            draining=self.admission.draining,
            tail_age=time.monotonic() - self.tailer.answered_at,
            position=self.window.position,
            streams=dict(counts),
            hub_alive=all(thread.is_alive() for thread in self._threads) and bool(self._threads),
            append_failed_at=self.stats.append_failed_at,
            runs=sum(self.stats.runs.values()),
        )

    def wake_polls(self) -> None:
        """Let long polls see that the worker drains, so that they are answered at once. (Streams only look.)"""
        with self.lock:
            self._wake_pulling()

    # ── from the tailer ───────────────────────────────────────────────────────────────────────────────────

    def replaced(self) -> None:
        """End all streams: the log is not the one that this worker has read. They are told when they resume."""
        if self.sockets is not None:
            self.sockets.let_all_go()
        with self.lock:
            for group in self.groups:
                group.pending = []
            for stream in self.pulling:
                stream.end(CloseReason.REPLACED)

    def overtaken(self, trimmed: int) -> None:
        """End all streams where they are: up to ``trimmed``, events and control records have passed unseen."""
        with self.lock:
            self._end_live()
            self.window.reset(trimmed)
            self._forget()
            self.control.missed()
            for stream in self.pulling:
                stream.end(CloseReason.FELL_BEHIND)
        if self.sockets is not None:
            self.sockets.end_now(lambda stream: True, CloseReason.FELL_BEHIND)

    def warmed(self, window: Window) -> None:
        """Take over a window that was filled from the log."""
        with self.advanced:
            self.window.become(window)
            self._forget()
            self.advanced.notify_all()

    def _forget(self) -> None:
        """Forget what markers keep true, because some may have passed unseen."""
        self.groups.forms.envelopes.forget()
        self.replay.erased()
        self.ends.forget()
        self.ends.judge(self.groups)

    def _end_live(self) -> None:
        if self.sockets is not None:
            self.sockets.end_live()
        for group in self.groups:
            group.pending = []

    def _wake_pulling(self) -> None:
        for stream in self.pulling:
            stream.wake()

    def await_round(self) -> None:
        """Wait while the fan-out writes nothing; what arrives meanwhile is read in one go then."""
        if self.sockets is not None:
            self.sockets.await_round()

    def step(self, records: list[Record], begin: int) -> int:
        """Return where the step of a batch that begins here ends: the records to dispatch in one go.

        Threat: ten thousand streams, each with a channel of its own and one that all share, are ten thousand groups.
        """
        end = min(begin + RECORDS_PER_STEP, len(records))
        if end - begin == 1:
            return end
        channels = list(map(_channel, records[begin:end]))
        with self.lock:
            groups = {channel: len(found) for channel, found in self.groups.among(set(channels)).items()}
        if not groups or max(groups.values()) * len(channels) < GIVEN_PER_STEP:
            return end
        given = accumulate(groups.get(channel, 0) for channel in channels)
        return next((at for at, total in enumerate(given, begin + 1) if total >= GIVEN_PER_STEP), end)

    def dispatch(self, records: list[Record]) -> None:
        """Take in what follows the window's position: encode what is wanted, keep all, and give it to the groups."""
        usual = self.control.kinds.isdisjoint(map(_kind, records))
        with self.lock:
            items, frames = encode_wanted(records, self.groups.among(set(map(_channel, records))))
            try:
                if usual:
                    self.window.extend(items)
                    self._give_all(frames)
                else:
                    self._take_in_and_obey(records, items)
            except Exception:
                # Some groups lack frames that the window has. Their streams end here and read them when they resume.
                self._end_live()
                self._wake_pulling()
                raise
            finally:
                self.advanced.notify_all()
                self._wake_sockets()
            if self.deliveries.reading:
                self.deliveries.mark(items, self.groups.of)
        if not usual:
            self.control.call_back(records)

    def _take_in_and_obey(self, records: list[Record], items: Sequence[Item]) -> None:
        """Take in a batch, and act on each marker once it was given to the groups."""
        begin = 0
        for end, record in enumerate(records, 1):
            if record.event in MARKERS or end == len(records):
                self.window.extend(items[begin:end])
                self._give_all([item for item in items[begin:end] if isinstance(item, Frame)])
                begin = end
                try:
                    self.control.act(record)
                except Exception:
                    # It will not pass again. What may have been erased must not be served.
                    self.window.reset(self.window.position)
                    raise

    def on_control(self, kind: str, callback: Callable[[dict[str, Any]], None]) -> None:
        """Call back with the data of each control record of this kind; in the tailer, so it must return at once."""
        self.control.on(kind, callback)

    def on_back(self, callback: Callable[[], None]) -> None:
        """Call back when control records may have been missed: the log is read for the first time, or again.

        It is called in the tailer, before the worker is ready. What it raises keeps the log from being followed, and it
        is called again.
        """
        self._back.append(callback)

    def back(self) -> None:
        """Tell that the log is read for the first time, or again."""
        for callback in self._back:
            callback()

    def _give_all(self, frames: Sequence[Frame]) -> None:
        channel: str | None = None
        groups: Collection[Group] = ()
        for frame in frames:
            if frame.channel != channel:
                channel = frame.channel
                groups = self.groups.of(channel)
            for group in groups:
                if matches(frame, group.subscription.types):
                    self._give(group, frame)

    def _give(self, group: Group, frame: Frame) -> None:
        # Pending frames must have no holes: a stream may join at the group's position after the last live one has left,
        # and before the pass that sends them.
        if group.live or group.pending:
            self._append(group, frame)
        for waiter in group.waiters:
            waiter.wake()

    def _append(self, group: Group, frame: Frame) -> None:
        group.pending.append(frame)
        if not group.dirty:
            group.dirty = True
            self.dirty.append(group)

    def _wake_sockets(self) -> None:
        if self.dirty and self.sockets is not None:
            self.sockets.wake()

    def inject(self, channel: str, wire: bytes) -> None:
        """Send a block that is in no log to everyone who listens to this reserved channel now (canary, statistics)."""
        with self.lock:
            for group in self.groups.of(channel):
                if group.live:
                    self._append(group, Frame(self.window.position, channel, None, wire))
                for waiter in group.waiters:
                    waiter.push(wire)
        self._wake_sockets()

    # ── what others ask ──────────────────────────────────────────────────────────────────────────────────────

    def listeners(self) -> Listeners:
        """Return how many streams of all workers listen to which channels. May wait for the log.

        Raises LogUnavailable.
        """
        return self.counting.all()

    def closed_channels(self, names: Collection[str]) -> dict[str, int]:
        """Return which of these channels are closed, with their closing positions. May wait for the log.

        Raises LogUnavailable.
        """
        return self.ends.closed_channels(names)

    # ── streams ───────────────────────────────────────────────────────────────────────────────────────────

    def join(self, subscription: Subscription) -> Group:
        """Return the group of this subscription, with one more member."""
        with self.lock:
            group = self.groups.join(subscription)
            if group.members == 1:
                self.ends.judge((group,))
            return group

    def leave(self, stream: Stream) -> None:
        """Account for a stream that is gone."""
        with self.lock:
            self.groups.leave(stream.group)
        if stream.client != OWN_CLIENT:
            self.admission.release(stream.client)

    def closed(self, stream: Stream, reason: CloseReason) -> None:
        """Account for a stream that has ended, and log it."""
        self.leave(stream)
        if stream.client == OWN_CLIENT:
            return
        self.stats.closed[reason] += 1
        if self._on_close is not None:
            self._on_close(stream, reason, time.monotonic())
