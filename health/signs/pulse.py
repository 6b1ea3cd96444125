"""A worker's vital signs: what runs in the background, and the snapshot that a probe is answered from.

Threads (greenlets under gevent), each with one duty, so that none waits for another's: the lag probe; the canary; the
pulse, which writes the board twice a second and begins the runs of an app's own checks; and one for each chore that may
wait for a disk or a network. A probe only reads. A duty that fails is begun again.
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

# Until its first canary is on the board a worker looks this often, this long (seconds): it answers for itself at once,
# and the others must not call the pod unready meanwhile.
EARLY_INTERVAL: Final = 0.05
EARLY_SECONDS: Final = 10.0

RESTART: Final = 1.0  # seconds until a duty that failed is begun again


class Vitals:
    """One process's signs; made and started in the process itself, after the fork.

    :param source: finds the service that is watched; None when there is none.
    :param chores: what else is done every so many seconds and may wait for a disk or a network, by name.
    """

    def __init__(
        self,
        source: Callable[[], Source | None],
        limits: Callable[[], Limits],
        user_checks: UserChecks,
        chores: Mapping[str, tuple[float, Callable[[], None]]],
    ) -> None:
        self.pid = os.getpid()
        self.seat: Seat = board.take_seat()
        self._source = source
        self._limits = limits
        self._user_checks = user_checks
        self._chores = chores
        self._stop = threading.Event()
        self._since = time.monotonic()
        own = None if self.seat.slot is None else self.seat.board.read(self.seat.slot)
        # The generation that this worker was forked in, which a reload since then must not change.
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
        """Run a duty until all stop. What it does not catch itself must not end it for good."""
        while not self._stop.is_set():
            self._guarded(name, run)
            self._stop.wait(RESTART)

    def stop(self) -> None:
        """Let the threads end; they are not waited for."""
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
            self._guarded("beat", self._beat)
            self._guarded("checks", self._user_checks.run_due)
            self._guarded("startup", self._latch)

    def _every(self, interval: float, work: Callable[[], None], name: str) -> None:
        while True:
            self._guarded(name, work)
            if self._stop.wait(interval):
                return

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """One part that fails must not end the others; it is logged once, until it has worked again."""
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
        """``/startupz`` stays passed, also when nobody asked in time and for workers that come later."""
        if not self.seat.board.started and ask("started", self.table(), self.snapshot()).ok:
            self.seat.board.mark_started()

    def _record(self) -> tuple[Record, bool]:
        """This worker as it is now, and whether its log is ready."""
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
        ), status.started

    # ── for the probes ────────────────────────────────────────────────────────────────────────────────────

    def table(self) -> tuple[Check, ...]:
        """All checks: the built-in ones, then the app's own."""
        return TABLE + self._user_checks.table

    def snapshot(self) -> Snapshot:
        """Everything that a verdict looks at. Reads memory only: no lock, no log, no network."""
        shared = self.seat.board
        log_ready = False
        try:
            own, log_ready = self._record()
        except Exception as error:
            # The service cannot even say how it is.
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
        """The board, on which the answering worker counts as it is this moment, not as it last wrote: a drain
        shows with the first answer. Its beat is what it wrote, so that every worker judges it alike."""
        records = self.seat.board.records()
        return [
            own._replace(slot=record.slot, beat=record.beat) if record.slot == self.seat.slot else record
            for record in records
        ]
