"""A worker's background work, and the snapshot from which probes are answered.

Each duty has a thread (a greenlet under gevent), so that none waits for another: the lag probe; the canary; the pulse,
which writes the board twice a second and starts the app's own checks; and each chore that may wait for a disk or a
network. A duty that fails is started again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ..checks.table import TABLE, Check, Limits, Snapshot, ask
from ..checks.user import UserChecks
from ..source import Source
from . import board
from .board import DRAINING, RUNNING, Record, Seat
from .canary import Canary
from .lag import LagProbe

logger = logging.getLogger("headwater.health")

# A new worker checks for its first canary this often and for this long (seconds), so that it is on the board quickly.
# Until then other workers may call the pod unready.
EARLY_INTERVAL: Final = 0.05
EARLY_SECONDS: Final = 10.0

RESTART: Final = 1.0  # seconds until a duty that failed starts again


class Pulse:
    """One process's background work. Create and start it in the process itself, after the fork.

    source: returns the watched service, or None.
    chores: name → (seconds between two runs, function that may wait for a disk or a network).
    abandoned: asked with each beat; True ends the work, because the app is no longer there.
    """

    def __init__(
        self,
        source: Callable[[], Source | None],
        limits: Callable[[], Limits],
        user_checks: UserChecks,
        chores: Mapping[str, tuple[float, Callable[[], None]]],
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        self.pid = os.getpid()
        self.seat: Seat = board.take_seat()
        self._source = source
        self._limits = limits
        self._user_checks = user_checks
        self._chores = chores
        self._abandoned = abandoned
        self._stop = threading.Event()
        self._since = time.monotonic()
        own = None if self.seat.slot is None else self.seat.board.read(self.seat.slot)
        # As it was at the fork: a later reload must not change it.
        self._generation = self.seat.board.generation if own is None else own.generation
        self.lag = LagProbe(self._stop)
        self.canary = Canary(source, self._stop)
        self._failing: set[str] = set()

    def start(self) -> None:
        self._guarded("beat", self._beat)
        duties = {"lag": self.lag.run, "canary": self.canary.run, "pulse": self._pulse}
        for name, (interval, work) in self._chores.items():
            duties[name] = partial(self._every, interval, work, name)
        for name, run in duties.items():
            threading.Thread(target=self._for_ever, args=(name, run), name=f"health-{name}", daemon=True).start()

    def _for_ever(self, name: str, run: Callable[[], None]) -> None:
        """Run a duty until ``stop``, and start it again after an exception."""
        while not self._stop.is_set():
            self._guarded(name, run)
            self._stop.wait(RESTART)

    def stop(self) -> None:
        """Tell the threads to end, without waiting for them."""
        self._stop.set()

    # ── the pulse ─────────────────────────────────────────────────────────────────────────────────────────

    def _pulse(self) -> None:
        began = last = time.monotonic()
        written = False  # the first canary is on the board
        while True:
            early = not written and last - began < EARLY_SECONDS
            if self._stop.wait(EARLY_INTERVAL if early else board.BEAT_INTERVAL):
                return
            written = self.canary.seen > 0.0
            if early and not written and time.monotonic() - last < board.BEAT_INTERVAL:
                continue
            last = time.monotonic()
            if self._abandoned():
                self.stop()
                return
            self._guarded("beat", self._beat)
            self._guarded("checks", self._user_checks.run_due)
            self._guarded("startup", self._latch)

    def _every(self, interval: float, work: Callable[[], None], name: str) -> None:
        while True:
            self._guarded(name, work)
            if self._stop.wait(interval):
                return

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Run one part, so that its exception does not stop the others. Log that once, until the part works again."""
        try:
            work()
        except Exception:
            if name not in self._failing:
                logger.exception("health: %s failed", name)
            self._failing.add(name)
        else:
            self._failing.discard(name)

    def _beat(self) -> None:
        record = self._record()[0]
        if self.seat.slot is not None:
            self.seat.board.write(record)

    def _latch(self) -> None:
        """Set the pod's ``started`` latch, even if nobody asks ``/startupz``."""
        if not self.seat.board.started and ask("started", self.table(), self.snapshot()).ok:
            self.seat.board.mark_started()

    def _record(self) -> tuple[Record, bool]:
        """Return this worker's present state, and whether its log is ready."""
        source = self._source()
        record = Record(
            slot=-1 if self.seat.slot is None else self.seat.slot,
            pid=self.pid,
            generation=self._generation,
            state=RUNNING,
            since=self._since,
            beat=time.monotonic(),
            canary=self.canary.seen,
            lag=self.lag.longest(),
        )
        if source is None:
            return record, True
        status = source.status()
        return record._replace(
            state=DRAINING if status.draining else RUNNING,
            hub_alive=status.hub_alive,
            tail_age=status.tail_age,
            append_failed=status.append_failed_at,
            streams=sum(status.streams.values()),
            runs=status.runs,
        ), status.started

    # ── for the probes ────────────────────────────────────────────────────────────────────────────────────

    def table(self) -> tuple[Check, ...]:
        """Return all checks: the built-in ones, then the app's own."""
        return TABLE + self._user_checks.table

    def snapshot(self) -> Snapshot:
        """Return everything that verdicts read. Reads only memory: no lock, no log, no network."""
        shared = self.seat.board
        log_ready = False
        try:
            own, log_ready = self._record()
        except Exception as error:
            own = Record(-1, self.pid, self._generation, RUNNING, hub_alive=False, beat=time.monotonic())
            logger.warning("health: the status cannot be read: %r", error)
        return Snapshot(
            now=time.monotonic(),
            workers=tuple(self._merged(own)),
            expected=shared.expected,
            generation=shared.generation,
            lag=self.lag.current(),
            started=shared.started,
            has_hub=self._source() is not None,
            log_ready=log_ready,
            canary=self.canary.seen,
            limits=self._limits(),
        )

    def _merged(self, own: Record) -> list[Record]:
        """Return the board's records, but with this worker's present state, so that a drain shows in the next answer.

        Its beat stays as it last wrote it, so that all workers judge it alike.
        """
        records = self.seat.board.records()
        return [
            own._replace(slot=record.slot, beat=record.beat) if record.slot == self.seat.slot else record
            for record in records
        ]
