"""The runs of one worker: what starts, finds, stops and ends them."""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from ..events.items import Item
from ..events.markers import own_event
from ..events.model import check_channel
from ..events.names import CONTROL_CHANNEL
from ..log import ChannelClosed, Log, LogUnavailable
from ..log.base import IDEMPOTENCY_SECONDS
from ..runtime.cooperation import OwnThread, offload, spawn
from ..runtime.failures import repeat
from ..runtime.iterables import close_iterable
from ..runtime.lines import Line
from ..settings import Settings
from ..streams.stats import Stats
from .book import Book, Claim, Info, make_id
from .ends import Written, find_end, write_end
from .leases import LOOK, RENEW, Lease, Reaper
from .run import Run, Spawn
from .states import Actor, Outcome, RunActive, RunsFull, State
from .writer import Writer

logger = logging.getLogger("headwater.runs")

#: The event of a control record that stops a run; its data is ``{"run": id}``.
STOP: Final = "stop"

#: Seconds that a repeated start waits for the first one. Its worker needs milliseconds, unless it has just died.
START_PATIENCE: Final = 2.0

#: Seconds until a duty that could not reach the log tries it again.
LOG_RETRY: Final = 0.5

#: Seconds that runs have to end when their worker is closed.
CLOSE_PATIENCE: Final = 1.5

#: How a run ends whose worker has to end.
DRAINED: Final = Outcome(State.LOST, Actor.DRAIN, error="drained")
_STOPPED: Final = Outcome(State.STOPPED, Actor.STOPPER)


_started: Final[weakref.WeakSet[Runs]] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    """End the runs of a process that ends without a drain, as other servers' workers do."""
    for runs in list(_started):
        if len(runs) and runs.pid == os.getpid():  # a forked child has its parent's
            runs.close()


class Runs:
    """See the module's text. Create it in the worker, after any fork.

    abandoned: tells that nobody has this object any more; clock: monotonic seconds.
    """

    def __init__(
        self,
        log: Log,
        settings: Settings,
        stats: Stats,
        abandoned: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = spawn,
    ) -> None:
        self.pid = os.getpid()
        #: this worker's name in the log
        self.worker = f"{socket.gethostname()}-{self.pid}-{secrets.token_hex(4)}"
        self._log = log
        self._settings = settings
        self._stats = stats
        self._abandoned = abandoned
        self._clock = clock
        self._spawn = spawn
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._book = Book(log, offload)
        self.lease = Lease(Book(log, OwnThread()), self.worker, self._all, clock)
        self.reaper = Reaper(log, Book(log, OwnThread()), stats, self.worker, self._runs.__contains__, clock)
        self.writer = Writer(log, settings, stats, self.worker, self.lease.hold, clock)
        self._told: dict[str, int] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads (greenlets under gevent)."""
        _started.add(self)
        duties = (("lease", self.renew, RENEW), ("reaper", self.look, LOOK))
        self._threads = [
            threading.Thread(target=partial(repeat, f"the runs' {name}", duty, self._stop, logger, first=first))
            for name, duty, first in duties
        ]
        self._threads.append(threading.Thread(target=self.writer.work, args=(self._stop,)))
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def close(self) -> None:
        """End the runs as lost, and stop the threads. What does not end in time, another worker will end."""
        self.drain()
        deadline = time.monotonic() + CLOSE_PATIENCE
        for run in self._all():
            run.ended.wait(max(deadline - time.monotonic(), 0))
        self._stop.set()
        self.writer.wake()
        for thread in self._threads:
            thread.join(2.0)

    def look(self) -> float:
        """Look for runs without an owner; return the seconds until the next look."""
        if self._abandoned() and not self._runs:  # the app was forgotten, as test suites do
            self._stop.set()
            self.writer.wake()
            return LOOK
        try:
            return self.reaper.look()
        except LogUnavailable:
            return LOG_RETRY

    def _all(self) -> list[Run]:
        return list(self._runs.values())

    def __len__(self) -> int:
        """Return how many runs have not ended."""
        return len(self._runs)

    def renew(self) -> float:
        """Renew the lease, if there are runs; return the seconds until that is due again."""
        try:
            if runs := self._all():
                self.lease.renew()
                told = {run.claim.run: run.events for run in runs}
                if told != self._told:
                    self._book.put_events(self.worker, told)
                    self._told = told
        except LogUnavailable:
            return LOG_RETRY  # the tailer logs it
        return RENEW

    # ── starting ────────────────────────────────────────────────────────────────────────────────────────────

    def run(
        self,
        channel: str,
        iterable: Iterable[Item],
        *,
        key: str | None = None,
        close: bool = True,
        in_context: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> Info:
        """Start a run, unless this key has one on this channel; return the run that there is then.

        The iterable is closed if it is not needed. in_context: calls its argument where the app's code may run. Raises
        InvalidEvent for a bad channel, RunActive, RunsFull, ChannelClosed, LogUnavailable.
        """
        check_channel(channel)
        run_id = make_id(channel, key)
        while key is not None:
            local = self._runs.get(run_id)
            if local is None or local.state is not State.STARTING:
                if (known := self.find(run_id)) is not None:
                    close_iterable(iterable)
                    return known
                break
            local.begun.wait()  # the same request at the same moment
        claim = Claim(run_id, channel, self.worker, time.time_ns() // 1_000_000, close)
        run = Run(
            claim,
            iterable,
            self.writer,
            max_bytes=lambda: self._settings.sse_max_event_bytes,
            in_context=in_context,
            write_end=self._write_end,
            clock=self._clock,
            spawn=self._spawn,
        )
        if not self._admit(run):
            return self.run(channel, iterable, key=key, close=close, in_context=in_context)
        other: Info | None = None
        try:
            other = self._begin(run)
            if other is None:
                run.start()
                self._stats.runs[State.STARTING] -= 1
                self._stats.runs[State.RUNNING] += 1
                return Info.of(run.claim, run.state, run.after)
        finally:
            if run.state is State.STARTING:
                self._forget(run)
            run.begun.set()
        close_iterable(iterable)
        return other

    def _admit(self, run: Run) -> bool:
        """Count a run that is about to start; return False if there is one with its id. Raises RunsFull."""
        with self._lock:
            if run.claim.run in self._runs:
                return False
            limit = self._settings.sse_max_runs
            if len(self._runs) >= limit:
                raise RunsFull(limit)
            self._runs[run.claim.run] = run
            self._stats.runs[State.STARTING] += 1
            return True

    def _forget(self, run: Run) -> None:
        with self._lock:
            del self._runs[run.claim.run]
            self._stats.runs[State.STARTING if run.state is State.STARTING else State.RUNNING] -= 1

    def _begin(self, run: Run) -> Info | None:
        """Write down that a run begins; return None, or the run of the same id that there is already.

        Raises RunActive, ChannelClosed, LogUnavailable. If the log fails half-way, reapers end what there is.
        """
        claim, channel = run.claim, run.channel
        self.lease.hold()
        lapses = self.lease.lapses
        if (present := self._book.claim(claim)) is not None:
            if present.run != claim.run:
                raise RunActive(channel, present.run)
            return self._once_begun(present)
        run.claimed = True
        closed, bounds = offload(lambda: (self._log.closed((channel,)), self._log.bounds()))
        run.after = bounds.latest
        if closed or not self._book.begin(Info.of(claim, State.RUNNING, run.after)):
            self._book.release(claim)
            if (known := self._book.info(claim.run)) is None:
                raise ChannelClosed(channel)
            return known
        self.lease.hold()
        if self.lease.lapses != lapses:
            self.lease.confirm(run)
        return None

    def _once_begun(self, claim: Claim) -> Info:
        """Return what is known of a run that another worker is starting at this moment; before, its position is not."""
        deadline = time.monotonic() + START_PATIENCE
        while True:
            info = self._book.info(claim.run)
            if (info is not None and info.state is not State.STARTING) or time.monotonic() >= deadline:
                return info or Info.of(claim, State.STARTING, 0)
            time.sleep(0.02)

    # ── finding and stopping ────────────────────────────────────────────────────────────────────────────────

    def find(self, run_id: str) -> Info | None:
        """Return what is known of a run, on whatever worker; None if nothing. Raises LogUnavailable."""
        local = self._runs.get(run_id)
        return self._book.info(run_id) if local is None else self._live(local)

    def of_channel(self, channel: str) -> list[Info]:
        """Return what is known of a channel's runs, the newest first. Raises LogUnavailable."""
        infos = self._book.infos(channel)
        return [self._live(local) if (local := self._runs.get(info.run)) else info for info in infos]

    @staticmethod
    def _live(run: Run) -> Info:
        return Info.of(run.claim, run.state, run.after, run.events)

    def stop(self, run_id: str) -> Info | None:
        """Stop a run, on whatever worker, unless it has ended; return what is known of it, None if nothing.

        Its worker closes the iterable within a second. Raises LogUnavailable.
        """
        if (info := self.find(run_id)) is not None and info.is_open and not self.stop_here(run_id):
            record = own_event(CONTROL_CHANNEL, STOP, json.dumps({"run": run_id}))
            self._log.append([record])
        return info

    def stop_here(self, run_id: str) -> bool:
        """Stop a run of this worker; return whether there is one."""
        run = self._runs.get(run_id)
        if run is not None:
            run.stop(_STOPPED)
        return run is not None

    def on_stop(self, data: dict[str, Any]) -> None:
        """Obey a control record."""
        self.stop_here(str(data.get("run")))

    def forget(self, channel: str) -> None:
        """Forget the runs of a channel that have ended. Raises LogUnavailable."""
        for info in self._book.infos(channel):
            if not info.is_open:
                self._book.forget(info)

    def drain(self) -> None:
        """End all runs of this worker as lost. Returns at once."""
        for run in self._all():
            run.stop(DRAINED)

    # ── ending ──────────────────────────────────────────────────────────────────────────────────────────────

    def _write_end(self, run: Run) -> None:
        """Write the end of a run of ours. If it raises LogUnavailable, it has to be called again."""
        outcome = run.outcome
        assert outcome is not None
        self.lease.hold()
        if run.claimed and not run.is_cut and not self._has_end(run):
            run.claimed = write_end(self._log, run.claim, outcome, run.events) is not Written.ANOTHER
        if run.claimed:
            self._book.end(Info.of(run.claim, outcome.state, run.after, run.events))
            self._book.release(run.claim)
        else:
            outcome = Outcome(State.LOST, Actor.REAPER)
        run.advance(outcome.state, outcome.by)
        self._ended(run, outcome)

    def _has_end(self, run: Run) -> bool:
        """Tell whether an earlier try has written the end, when the log may have forgotten its key."""
        now = self._clock()
        run.end_tried = min(run.end_tried, now)
        if now - run.end_tried < IDEMPOTENCY_SECONDS / 2:
            return False
        return find_end(self._log, run.claim, run.after, offload)[0] is not None

    def _ended(self, run: Run, outcome: Outcome) -> None:
        seconds = self._clock() - run.began
        if run.claimed:
            self._stats.runs_ended[outcome.state] += 1
        self._stats.run_seconds.observe(seconds)
        self._forget(run)
        logger.info(
            Line(
                "run",
                run=run.claim.run,
                state=outcome.state,
                events=run.events,
                duration=round(seconds, 3),
                **({} if outcome.error is None else {"error": outcome.error}),
            )
        )
