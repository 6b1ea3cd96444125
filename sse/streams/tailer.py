"""The tailer: reads the log from the window's position on, for as long as the worker lives.

Whatever becomes of the log, streams either go on without a hole or end where they are, and are told of the gap when
they resume:

    the log cannot be reached       streams stay open; what they missed comes when it answers again
    it was trimmed beyond us        they end (`overtaken`), and so does what is left of the batch before the gap
    it is another one than before   they end (`replaced`), and the window is made anew
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Protocol

from ..events.batch import encode_frames
from ..events.model import Record, format_id
from ..log import Log, LogError
from ..log.base import FOLLOW_CHARS, FOLLOW_RECORDS, Batch, LogReplaced
from ..runtime.cooperation import OwnThread, breathe
from ..settings import Settings
from .deliveries import Deliveries
from .retention import Retention
from .window import Window

logger = logging.getLogger("headwater.hub")

# A tailer that lost its log tries again after this long, doubling to the second figure, each ±50 %, so that the
# workers of many pods do not come back in step.
RETRY_FIRST, RETRY_MOST = 0.1, 0.6

# Events that are put into the window in a row while it is filled.
WARMED_PER_STEP = 1000

# After this long without an answer from the log, the tailer looks whether retention has overtaken it.
STALL = 5.0


class Receiver(Protocol):
    """The hub, as its tailer sees it."""

    log: Log
    settings: Settings
    window: Window
    deliveries: Deliveries
    retention: Retention
    #: the hub's lock, notified when the window has moved
    advanced: threading.Condition

    def step(self, records: list[Record], begin: int) -> int: ...

    def dispatch(self, records: list[Record]) -> None: ...

    def overtaken(self, trimmed: int) -> None: ...

    def replaced(self) -> None: ...

    def busy_until(self) -> float: ...


class Tailer:
    """See the module's text. ``run`` is a thread's work, until ``stop`` is set."""

    def __init__(self, hub: Receiver, stop: threading.Event) -> None:
        self._hub = hub
        self._stop = stop
        #: set when the log was reached and the window is warm
        self.ready = threading.Event()
        #: when (monotonic seconds) the log answered last
        self.answered_at = time.monotonic()
        # Streams wait for what the tailer asks of the log, so it must not wait for what others ask.
        self._aside = OwnThread()
        self._delay = RETRY_FIRST
        self._complained_of: type[Exception] | None = None
        self._replaced = False  # the streams are still to be let go of
        # Its own, so that what an app (or a test) makes of the shared one is not disturbed from a thread.
        self._jitter = random.Random()

    def run(self) -> None:
        """Follow the log until the hub stops. What goes wrong is said once, until the log has been followed again."""
        while not self._stop.is_set():
            try:
                self._follow()
            except LogError as error:
                self._complain("the log cannot be followed, streams stay open: %s", error)
            except Exception as error:
                self._complain("the tailer failed, it starts again: %r", error, exc_info=True)
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
            self._let_go()
            if not self.ready.is_set():
                self.warm()
            for batch in hub.log.follow(hub.window.position, self._stop):
                self._take(batch)
                hold = hub.busy_until() - time.monotonic()
                if hold > 0:
                    self._stop.wait(hold)
                if self._stop.is_set():
                    return
        except LogReplaced as error:
            # What this worker has read is not what the log holds.
            logger.warning("%s: streams end, and resume with a reset where they missed something", error)
            self._replaced = True
            self.ready.clear()
            self._let_go()

    def _let_go(self) -> None:
        """End the streams of a log that was replaced; to be called again if it fails."""
        if self._replaced:
            self._hub.replaced()
            self._replaced = False

    def _take(self, batch: list[Record]) -> None:
        """Hand a batch to the hub."""
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
        """The log has been read, beginning after this position."""
        self.answered_at = time.monotonic()
        if self._complained_of is not None:
            logger.warning("the log is followed again, after %s", format_id(position))
            self._complained_of = None
        self._delay = RETRY_FIRST

    def warm(self) -> None:
        """Fill the window with the newest that the log has, and stand at its end. Raises LogError.

        That takes a second for a full one, so others run meanwhile, and see the window when it is whole.
        """
        hub = self._hub
        bounds = self._aside(hub.log.bounds)
        most = hub.settings.sse_window_bytes
        records = self._aside(hub.log.newest, None, hub.settings.sse_retain_events, most // 2)
        window = Window(most)
        whole = not records or bounds.oldest is None or records[0].position <= bounds.oldest
        window.reset(bounds.trimmed if whole else records[0].position - 1)
        for begin in range(0, len(records), WARMED_PER_STEP):
            window.extend(encode_frames(records[begin : begin + WARMED_PER_STEP]))
            breathe()
        window.position = max(window.position, bounds.latest)
        window.lost = bounds.lost
        with hub.advanced:
            hub.window.become(window)
            hub.advanced.notify_all()
        self.answered_at = time.monotonic()
        self.ready.set()

    def _after_gap(self, batch: list[Record]) -> list[Record]:
        """Has the log trimmed what this worker has not read (it was stopped, or cut off from the log)? Then its live
        streams end where they are, and are told of the gap when they resume, instead of missing events unknowingly.
        Returns what of the batch lies behind it.

        Looked at only when it can be: trimmed by number, a batch is as large as the retention; by age, the last one is
        long ago.
        """
        hub = self._hub
        silent = time.monotonic() - self.answered_at
        events, seconds = hub.retention.least()
        full = not hub.log.notices_gaps and (
            len(batch) >= min(FOLLOW_RECORDS, events) or sum(len(r.data) for r in batch) >= FOLLOW_CHARS
        )
        if not full and silent < min(STALL, seconds / 2):
            return batch
        trimmed = self._aside(hub.log.bounds).trimmed
        if trimmed <= hub.window.position:
            return batch
        logger.warning("the log was trimmed beyond what this worker had read: its streams end, and resume with a reset")
        hub.overtaken(trimmed)
        return [record for record in batch if record.position > trimmed]
