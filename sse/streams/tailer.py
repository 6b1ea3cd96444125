"""The tailer: reads the log from the window's position on, for as long as the worker lives.

Whatever happens to the log, a stream either goes on without a hole, or it ends where it is and is told of the gap when
it resumes:

    the log cannot be reached       streams stay open, and get what they missed once it answers again
    it was trimmed beyond us        live streams end (`overtaken`); records before the gap are dropped
    it is another one than before   all streams end (`replaced`), and the window is filled from the new one
"""

from __future__ import annotations

import logging
import random
import threading
import time
from operator import itemgetter
from typing import Protocol

from ..events.model import Record, format_id
from ..log import Log, LogError
from ..log.base import FOLLOW_CHARS, FOLLOW_RECORDS, Batch, LogReplaced
from ..runtime.cooperation import OwnThread, breathe
from ..settings import Settings
from .control import Control
from .deliveries import Deliveries
from .retention import Retention
from .window import FRAME_OVERHEAD_BYTES, Window

logger = logging.getLogger("headwater.hub")

# Seconds until a tailer that lost its log tries again: the first, doubled up to the second, each ±50 % so that the
# workers of many pods do not return in step.
RETRY_FIRST, RETRY_MOST = 0.1, 0.6

# Events that enter the window in a row while it is filled at the start.
WARMED_PER_STEP = 1000

# A log answers each second. After so many seconds without an answer, and without a failure, the worker stood still.
STOOD_STILL = 2.0
# Seconds that a stream which opens then waits for the log.
CATCH_UP = 1.0

# After so many seconds without an answer from the log, the tailer checks whether retention has overtaken it.
STALL = 5.0


_data = itemgetter(4)  # a record's


class Receiver(Protocol):
    """The hub, as its tailer sees it."""

    log: Log
    settings: Settings
    window: Window
    control: Control
    deliveries: Deliveries
    retention: Retention
    #: the hub's lock, notified when the window has moved
    advanced: threading.Condition

    def step(self, records: list[Record], begin: int) -> int: ...

    def dispatch(self, records: list[Record]) -> None: ...

    def overtaken(self, trimmed: int) -> None: ...

    def warmed(self, window: Window) -> None: ...

    def back(self) -> None: ...

    def replaced(self) -> None: ...

    def await_round(self) -> None: ...


class Tailer:
    """See the module's text. :meth:`run` is a thread's work, until ``stop`` is set."""

    def __init__(self, hub: Receiver, stop: threading.Event) -> None:
        self._hub = hub
        self._stop = stop
        #: set when the log was reached and the window is warm
        self.ready = threading.Event()
        #: when the log last answered, monotonic seconds
        self.answered_at = time.monotonic()
        # Its own thread for the log: in the shared pool, the tailer and every stream would wait behind others' reads.
        self._in_own_thread = OwnThread()
        self._delay = RETRY_FIRST
        self._complained_of: type[Exception] | None = None
        self._missed = False  # records may have passed unseen
        self._replaced = False  # the log was, and its streams have still to be ended
        self._jitter = random.Random()  # its own, so that this thread does not disturb an app's seeded sequence

    def run(self) -> None:
        """Follow the log until the hub stops. Log a failure once, and again only after the log has been followed."""
        while not self._stop.is_set():
            try:
                self._follow()
            except LogError as error:
                self._complain("the log cannot be followed, streams stay open: %s", error)
            except Exception as error:
                self._complain("the tailer failed, it starts again: %r", error, exc_info=True)
            self._missed = True
            self._stop.wait(self._delay * self._jitter.uniform(0.5, 1.5))
            self._delay = min(self._delay * 2, RETRY_MOST)

    def _complain(self, message: str, error: Exception, exc_info: bool = False) -> None:
        if type(error) is not self._complained_of:
            self._complained_of = type(error)
            logger.log(logging.ERROR if exc_info else logging.WARNING, message, error, exc_info=exc_info)

    def _follow(self) -> None:
        """Follow the log until it cannot be followed. Raises LogError."""
        hub = self._hub
        try:
            self._end_replaced()
            if not self.ready.is_set():
                self.warm()
            for batch in hub.log.follow(hub.window.position, self._stop):
                self._take(batch)
                if self._missed:
                    hub.back()
                    self._missed = False
                hub.await_round()
                if self._stop.is_set():
                    return
        except LogReplaced as error:
            logger.warning("%s: streams end, and resume with a reset where they missed something", error)
            self._replaced = True
            self.ready.clear()
            self._end_replaced()

    def _end_replaced(self) -> None:
        """End the streams of a log that was replaced; if that fails, the next turn tries again."""
        if self._replaced:
            self._hub.replaced()
            self._replaced = False

    def _take(self, batch: list[Record]) -> None:
        """Give a batch to the hub."""
        hub = self._hub
        if isinstance(batch, Batch) and batch.traces:
            hub.deliveries.took(batch.traces)
        if not (isinstance(batch, Batch) and batch.whole):
            batch = self._after_gap(batch)
        before, begin = hub.window.position, 0
        while begin < len(batch):
            if begin:
                breathe()
            end = hub.step(batch, begin)
            hub.dispatch(batch[begin:end])
            begin = end
        self._answered(before)

    def _answered(self, position: int) -> None:
        """Note that the log could be read; ``position`` is where that read began."""
        self.answered_at = time.monotonic()
        if self._complained_of is not None:
            logger.warning("the log is followed again, after %s", format_id(position))
            self._complained_of = None
        self._delay = RETRY_FIRST

    def catch_up(self) -> None:
        """Wait, if the worker stood still, until it has read what happened meanwhile; at most CATCH_UP seconds.

        Threat: a process that was stopped, or a virtual machine that was paused, serves events from its window that
        were erased meanwhile. While the log is away, nobody can know of that, and the window is used.
        """
        deadline = time.monotonic() + CATCH_UP
        with self._hub.advanced:
            while time.monotonic() - self.answered_at > STOOD_STILL and self._complained_of is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._hub.advanced.wait(min(left, 0.02))

    def warm(self) -> None:
        """Fill the window with the newest events of the log, and go on from the log's end. Raises LogError.

        A full window takes a second. So others run meanwhile, and get to see the window once it is complete.
        """
        hub = self._hub
        bounds = self._in_own_thread(hub.log.bounds)
        most = hub.settings.sse_window_bytes
        records = self._in_own_thread(hub.log.newest, None, most // FRAME_OVERHEAD_BYTES, most // 2)
        # Asked for again: rules trim events of any age, so some may have gone between the two answers before.
        trimmed = self._in_own_thread(hub.log.bounds).trimmed
        window = Window(most)
        first = records[0].position if records else bounds.latest + 1
        whole = not records or bounds.oldest is None or first <= bounds.oldest
        window.reset(min(trimmed, first - 1) if whole else first - 1)
        window.trimmed = trimmed
        for begin in range(0, len(records), WARMED_PER_STEP):
            window.extend(records[begin : begin + WARMED_PER_STEP])
            breathe()
        window.position = max(window.position, bounds.latest)
        window.lost = bounds.lost
        hub.warmed(window)
        hub.back()
        self._missed = False
        self.answered_at = time.monotonic()
        self.ready.set()

    def _after_gap(self, batch: list[Record]) -> list[Record]:
        """Return the records that lie after a gap, if the log trimmed events before this worker read them.

        That happens to a worker that was stopped or cut off from the log. Its live streams end where they are, and are
        told of the gap when they resume.

        The log is asked only if a gap is possible: trimming by number overtakes a worker only if the batch is as large
        as the retention, trimming by age only if the last batch is long ago.
        """
        hub = self._hub
        silent = time.monotonic() - self.answered_at
        events, seconds = hub.retention.least()
        full = not hub.log.notices_gaps and (
            len(batch) >= min(FOLLOW_RECORDS, events) or sum(map(len, map(_data, batch))) >= FOLLOW_CHARS
        )
        if not full and silent < min(STALL, seconds / 2):
            return batch
        trimmed = self._in_own_thread(hub.log.bounds).trimmed
        if trimmed <= hub.window.position:
            return batch
        logger.warning("the log was trimmed beyond what this worker had read: its streams end, and resume with a reset")
        hub.overtaken(trimmed)
        hub.control.call_back([record for record in batch if record.position <= trimmed])
        self._missed = True
        return [record for record in batch if record.position > trimmed]
