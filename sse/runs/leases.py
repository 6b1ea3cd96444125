"""Leases: how workers know of each other's death, and end the runs of the dead as ``lost``.

A worker with runs renews one lease in the log, for all of them. Its expiry goes by the log's clock, so the pods' clocks
do not matter. Each worker's reaper looks at the claims of all runs, and at the leases.

**No run is lost in vain.** A log that was away for a while, or whose clock was set, has no leases that are good, though
all workers live. So a reaper acts only when it has seen the log answer for the length of a lease without a break, and
the lease missing for longer than a renewal takes.

**No run has two owners.** To end another worker's run, the reaper changes the claim. An owner whose lease was over
(it was stopped, or cut off from the log) first has to confirm each of its claims, which changes them, too. Both do
that by compare-and-set, so one of them fails: the reaper then leaves the run alone, or the owner closes its iterable
and appends nothing more. What is left is an owner that is suspended between this check and its append, for longer than
a lease: the log refuses that append, because the channel is closed by then. Only with ``close=False`` its events would
come behind the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from ..log import Log, LogError
from ..streams.stats import Stats
from .book import LEASE, RENEW, Book, Claim, Info
from .ends import find_end, write_end
from .states import Actor, Outcome, State

logger = logging.getLogger("headwater.runs")

#: Seconds between two looks of a reaper.
LOOK: Final = 0.5
#: Seconds for which it must have seen a lease missing. Longer than a renewal takes.
MISSING: Final = RENEW + 0.5
# A look that is so many seconds late, or before which the clock of the machine was set by so many, is a break.
_BREAK: Final = 1.0


class Holder(Protocol):
    """A run of this worker, as its lease sees it."""

    #: the claim, and whether it is in the log, and ours
    claim: Claim
    claimed: bool

    def cut(self, outcome: Outcome, why: str) -> None:
        """End it where it is."""


class Lease:
    """This worker's lease. runs: returns its runs; clock: monotonic seconds."""

    def __init__(
        self, book: Book, worker: str, runs: Callable[[], Iterable[Holder]], clock: Callable[[], float]
    ) -> None:
        self._book = book
        self._worker = worker
        self._runs = runs
        self._clock = clock
        self._until = float("-inf")  # it is good until then
        self._lock = threading.Lock()
        #: how often it was over before it was renewed
        self.lapses = 0

    def hold(self) -> None:
        """Make sure that the lease is good, and all claims are ours. Raises LogUnavailable."""
        if self._clock() >= self._until:
            with self._lock:
                if self._clock() >= self._until:
                    self._renew()

    def renew(self) -> None:
        """Renew the lease. Raises LogUnavailable."""
        with self._lock:
            self._renew()

    def _renew(self) -> None:
        began = self._clock()
        self._book.put_lease(self._worker)
        if self._clock() >= self._until:  # it may have been over for a moment, and a reaper may have seen that
            self.lapses += 1
            for run in self._runs():
                if run.claimed:
                    self.confirm(run)
        self._until = began + LEASE

    def confirm(self, run: Holder) -> None:
        """Confirm one claim after the lease was over; cut the run if it is not ours any more. Raises LogUnavailable."""
        claim = run.claim.by(self._worker)
        if self._book.change(run.claim, claim):
            run.claim = claim
        else:
            run.claimed = False
            run.cut(Outcome(State.LOST, Actor.REAPER), "our lease was over, and another worker has ended the run")


class Reaper:
    """Ends the runs of dead workers.

    mine: tells whether this worker has a run of this id; clock, wall: monotonic and unix seconds.
    """

    def __init__(
        self,
        log: Log,
        book: Book,
        stats: Stats,
        worker: str,
        mine: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._book = book
        self._stats = stats
        self._worker = worker
        self._mine = mine
        self._clock = clock
        self._wall = wall
        self._since: float | None = None  # since when the log has answered
        self._looked = (0.0, 0.0)  # the last look, by both clocks
        self._missing: dict[Claim, float] = {}  # claims without a lease, and since when

    def look(self) -> float:
        """Look once, and end what has no owner; return the seconds until the next look. Raises LogUnavailable."""
        began, wall = self._clock(), self._wall()
        try:
            self._look(began, wall)
        except LogError:
            self._since = None
            raise
        return LOOK

    def _look(self, began: float, wall: float) -> None:
        claims = self._book.claims()
        leases = self._book.leases() if claims else set()
        now = self._clock()
        if self._since is None or self._broken(now, wall):
            self._since, self._missing = now, {}
        self._looked = now, wall
        self._missing = {claim: self._missing.get(claim, now) for claim in claims if self._is_orphan(claim, leases)}
        if began - self._since >= LEASE:
            for claim, since in self._missing.items():
                if began - since >= MISSING:
                    self._end(claim)

    def _broken(self, now: float, wall: float) -> bool:
        before, wall_before = self._looked
        late = now - before - LOOK
        return late > _BREAK or abs((wall - wall_before) - (now - before)) > _BREAK

    def _is_orphan(self, claim: Claim, leases: set[str]) -> bool:
        if claim.worker == self._worker:
            return not self._mine(claim.run)  # its start or its end failed half-way
        return claim.worker not in leases

    def _end(self, claim: Claim) -> None:
        """End one run as lost, unless it has an end already."""
        taken = claim.by(self._worker)
        if not self._book.change(claim, taken):
            return  # its owner is back, or another reaper was faster
        info = self._book.info(claim.run)
        after = 0 if info is None else info.after
        state, events = None, 0
        if info is not None and info.state is not State.STARTING:  # else it has stored nothing
            state, events = find_end(self._log, taken, after, self._book.waiting)
        if state is None:
            if write_end(self._log, taken, Outcome(State.LOST, Actor.REAPER), events):
                state = State.LOST
                self._stats.runs_ended[state] += 1
                logger.warning(
                    "the run %s is lost after %d events: its worker %s has gone", claim.run, events, claim.worker
                )
            else:  # its owner's end was under way
                state, events = find_end(self._log, taken, after, self._book.waiting)
        self._book.end(Info.of(claim, state or State.LOST, after, events))
        self._book.release(taken)
