"""Stores what a worker's runs yield: what came within SSE_RUN_FLUSH, of all runs, in one append.

An iterable waits while ``MOST_WAITING`` of its items do. While the log cannot be reached, a run that has so much ends
as ``error`` instead, because nothing may be dropped silently.

Each append has an idempotency key, so an append that failed without an answer is repeated and stored once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from ..events.model import Event
from ..log import ChannelClosed, Log, LogError, LogUnavailable
from ..log.base import IDEMPOTENCY_SECONDS
from ..runtime.failures import Failures
from ..settings import Settings
from ..streams.stats import Stats
from .states import Actor, Outcome, State

logger = logging.getLogger("headwater.runs")

#: What may wait of one run, bytes. An item counts as its characters and this many more, which it takes in memory.
MOST_WAITING: Final = 1024 * 1024
ITEM_OVERHEAD: Final = 100

# Limits of one append: others wait for it.
APPEND_EVENTS: Final = 1000
APPEND_CHARS: Final = 1024 * 1024

# Seconds until an append that failed is tried again: the first time, doubled up to the second.
RETRY_FIRST: Final = 0.1
RETRY_MOST: Final = 1.0

# Seconds after which an append that may have been stored is not repeated: the log may have forgotten its key.
GIVE_UP: Final = IDEMPOTENCY_SECONDS / 2

_AWAY: Final = Outcome(State.ERROR, Actor.OWNER, error="the log could not be reached")
_CLOSED: Final = Outcome(State.ERROR, Actor.OWNER, error="the channel was closed")


class LogAway(Exception):
    """The log cannot be reached, and no more of this run can wait for it."""


class Source(Protocol):
    """A run, as its writer sees it. The writer keeps the account.

    waiting: what is not taken for an append yet; waiting_bytes: the size of all that is not stored; events: how many
    are stored; flush_at: when it may next be appended, monotonic seconds.
    """

    waiting: list[Event]
    waiting_bytes: int
    events: int
    flush_at: float

    @property
    def channel(self) -> str: ...

    @property
    def takes(self) -> bool:
        """False once the run's end is decided."""

    @property
    def is_cut(self) -> bool:
        """True if nothing of it may be stored any more."""

    def stop(self, outcome: Outcome) -> None:
        """End it."""

    def cut(self, outcome: Outcome, why: str) -> None:
        """End it where it is: not even its end can be stored."""


class _Batch:
    """One append: what each run gave.

    doubtful_since: when it was first tried without an answer, so that it may be in the log.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.doubtful_since = float("inf")
        self.parts: list[tuple[Source, list[Event]]] = []


class Writer:
    """See the module's text. One thread calls :meth:`work`, which calls :meth:`flush` for ever.

    worker: begins the keys; confirm: makes sure that our lease is good, or raises LogUnavailable; it cuts the runs that
    another worker has ended meanwhile; clock: monotonic seconds.
    """

    def __init__(
        self,
        log: Log,
        settings: Settings,
        stats: Stats,
        worker: str,
        confirm: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._settings = settings
        self._stats = stats
        self._worker = worker
        self._confirm = confirm
        self._clock = clock
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # runs wait for it
        self._wanted = threading.Condition(lock)  # the writer waits for it
        self._looks_at = float("inf")  # when it looks by itself
        self._waiting: dict[Source, None] = {}  # runs with items that wait, the longest first
        self._batch: _Batch | None = None  # what is being appended, or has to be tried again
        self._numbers = 0
        self._flushed_at = float("-inf")
        self._retry_at = 0.0
        self._delay = RETRY_FIRST
        self._away = False  # the last append failed

    def put(self, run: Source, event: Event) -> bool:
        """Take an event of a run; wait while too much of it waits. Return False if the run takes no more.

        Raises LogAway.
        """
        size = _size(event)
        with self._changed:
            while run.takes and run.waiting_bytes and run.waiting_bytes + size > MOST_WAITING:
                if self._away:
                    raise LogAway
                self._changed.wait()
            if not run.takes:
                return False
            run.waiting.append(event)
            run.waiting_bytes += size
            if run not in self._waiting:
                self._waiting[run] = None
                if self._due(run.flush_at) < self._looks_at:
                    self._looks_at = 0.0
                    self._wanted.notify()
            return True

    def wake(self) -> None:
        """Let everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()
            self._wanted.notify()

    def empty(self, run: Source) -> bool:
        """Return True if nothing of a run waits."""
        return run.is_cut or not run.waiting_bytes

    def wait_empty(self, run: Source) -> None:
        """Wait until nothing of a run waits."""
        with self._changed:
            self._changed.wait_for(lambda: self.empty(run))

    # ── the writing side ────────────────────────────────────────────────────────────────────────────────────

    def work(self, stop: threading.Event) -> None:
        """Store what comes, until ``stop`` is set (then call :meth:`wake`)."""
        failures, failure = Failures(logger), "storing what runs have yielded failed; it is tried again"
        while True:
            with self._wanted:
                while not stop.is_set() and (pause := self.pause()) != 0:
                    self._looks_at = float("inf") if pause is None else self._clock() + pause
                    self._wanted.wait(pause)
                self._looks_at = 0.0  # at once, after this append
            if stop.is_set():
                return
            try:
                self.flush()
            except Exception:
                failures.report(failure)
                stop.wait(RETRY_MOST)
            else:
                failures.over(failure, "what runs have yielded is stored again")

    def pause(self) -> float | None:
        """Return the seconds until the next append is due: 0 for now, None if nothing waits."""
        if self._batch is not None:
            due = self._retry_at
        elif self._waiting:
            held_back = self._settings.sse_publish_rate
            due = self._due(min(run.flush_at for run in self._waiting) if held_back else 0.0)
        else:
            return None
        return max(due - self._clock(), 0)

    def _due(self, flush_at: float) -> float:
        """Return when the next append is due of a run that may be appended then."""
        return max(flush_at, self._flushed_at + self._settings.sse_run_flush / 1000)

    def flush(self) -> None:
        """Make one append of what is due, if anything is. If it cannot be stored now, keep it."""
        with self._changed:
            if self.pause() != 0:
                return
            batch = self._batch = self._batch or self._take()
        if self._clock() - batch.doubtful_since > GIVE_UP:
            self._give_up(batch)
            return
        try:
            self._confirm()
            events = [event for run, events in batch.parts if not run.is_cut for event in events]
            if events:
                # The key is for this batch alone, so there is no other content to be told apart by a digest.
                self._log.append(events, key=batch.key)
        except ChannelClosed as error:
            for run, _ in batch.parts:
                if run.channel == error.channel:
                    run.cut(_CLOSED, "its channel was closed")
        except LogError as error:
            self._failed(batch, error)
        else:
            self._stored(batch, len(events))

    def _take(self) -> _Batch:
        """Take what the next append stores, of each run in turn."""
        now = self._clock()
        rate = self._settings.sse_publish_rate
        self._numbers += 1
        batch = _Batch(f"run-items:{self._worker}:{self._numbers}")
        events = chars = 0
        for run in [run for run in self._waiting if run.flush_at <= now]:
            taken: list[Event] = []
            for event in run.waiting:
                if events >= APPEND_EVENTS or chars >= APPEND_CHARS:
                    break
                taken.append(event)
                events += 1
                chars += len(event.data)
            if not taken:
                return batch  # it is full; the rest follows at once
            batch.parts.append((run, taken))
            del run.waiting[: len(taken)], self._waiting[run]
            if run.waiting:
                self._waiting[run] = None  # behind the others
            elif rate:
                run.flush_at = now + 1 / rate  # a run is a publisher, and each append of it a request
        self._flushed_at = now
        return batch

    def _failed(self, batch: _Batch, error: LogError) -> None:
        self._stats.append_failed_at = time.monotonic()
        with self._changed:
            if not (isinstance(error, LogUnavailable) and error.stored == "no"):
                batch.doubtful_since = min(batch.doubtful_since, self._clock())
            if not self._away:
                logger.warning("what runs have yielded cannot be stored, it waits: %s", error)
            self._away = True
            longest = error.retry_after if isinstance(error, LogUnavailable) else RETRY_MOST
            self._retry_at = self._clock() + min(self._delay, longest)
            self._delay = min(self._delay * 2, RETRY_MOST)
            self._changed.notify_all()

    def _give_up(self, batch: _Batch) -> None:
        """End the runs of a batch of which nobody knows whether it is stored. What follows it must not be stored."""
        for run, taken in batch.parts:
            logger.error("the run on %s ends: nobody knows whether %d items of it are stored", run.channel, len(taken))
            run.stop(_AWAY)
        with self._changed:
            self._batch = None
            for run, _ in batch.parts:
                run.waiting.clear()
                run.waiting_bytes = 0
                self._waiting.pop(run, None)
            self._changed.notify_all()

    def _stored(self, batch: _Batch, events: int) -> None:
        self._stats.append_failed_at = 0.0
        self._stats.published += events
        self._stats.run_items += events
        with self._changed:
            if self._away:
                logger.warning("what runs have yielded is stored again")
            self._away = False
            self._delay = RETRY_FIRST
            self._batch = None
            for run, taken in batch.parts:
                run.waiting_bytes -= sum(map(_size, taken))
                run.events += 0 if run.is_cut else len(taken)
            self._changed.notify_all()


def _size(event: Event) -> int:
    return len(event.data) + ITEM_OVERHEAD
