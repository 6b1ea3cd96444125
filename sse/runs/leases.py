"""Leases: how workers know of each other's death, and end the runs of the dead as ``lost``.

A worker with runs renews one lease for all of them: a note with a number that grows. Each worker's reaper looks at the
claims of all runs, and at the leases. A worker is dead when its lease has not changed for ``DEAD`` seconds. The reaper
measures that with its own clock, from when it saw the last change, so no two clocks have to agree.

**No run is lost in vain.** While the log is away nobody can renew a lease, though all workers live. So a reaper begins
to count again when the log answers again, or when it was itself late.

**No run has two owners.** A lease is good for ``LEASE`` seconds from the beginning of its renewal, which is less than
``DEAD``. So when a reaper acts, the owner knows that its lease may be over. It then has to confirm each of its claims
before it stores anything. Confirming changes the claim, and so does the reaper when it takes it; both do it by
compare-and-set, so one of them fails. Either the reaper leaves the run alone, or the owner closes its iterable and
appends nothing more. What is left is an owner that is suspended after it has looked at its lease and before it
appends, for longer than that takes. The log refuses such an append, because the channel is closed by then. Only with
``close=False`` its events would come behind the end.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from ..log import Log, LogError
from ..streams.stats import Stats
from .book import Book, Claim, Info
from .ends import Written, find_end, write_end
from .states import Actor, Outcome, State

logger = logging.getLogger("headwater.runs")

#: Seconds between two renewals, and for how long one is good.
RENEW: Final = 1.5
LEASE: Final = 4.5
#: Seconds without a change after which a worker is dead.
DEAD: Final = 5.0
#: Seconds between two looks of a reaper. One that is later than this by so much has seen nothing meanwhile.
LOOK: Final = 0.5
_LATE: Final = 1.0


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
        self._number = 0
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
        self._number += 1
        self._book.put_lease(self._worker, self._number)
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

    mine: tells whether this worker has a run of this id; clock: monotonic seconds.
    """

    def __init__(
        self,
        log: Log,
        book: Book,
        stats: Stats,
        worker: str,
        mine: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._book = book
        self._stats = stats
        self._worker = worker
        self._mine = mine
        self._clock = clock
        self._looked_at = float("-inf")
        self._random = random.Random()
        # The claims that may have no owner, with the lease of their worker as it is now, and since when we know that.
        self._watched: dict[Claim, tuple[str | None, float]] = {}

    def look(self) -> float:
        """Look once, and end what has no owner; return the seconds until the next look. Raises LogUnavailable."""
        try:
            self._look()
        except LogError:
            self._watched = {}
            raise
        return LOOK

    def _look(self) -> None:
        claims = self._book.claims()
        leases = self._book.leases() if claims else {}
        now = self._clock()
        before, self._watched = self._watched, {}
        late = now - self._looked_at > LOOK + _LATE
        self._looked_at = now
        for claim in claims:
            if claim.worker == self._worker and self._mine(claim.run):
                continue  # else its start or its end has failed half-way
            lease = leases.get(claim.worker) if claim.worker != self._worker else None
            seen, since = before.get(claim, (None, now))
            self._watched[claim] = lease, now if late or seen != lease else since
        dead = [claim for claim, (_, since) in self._watched.items() if now - since >= DEAD]
        self._random.shuffle(dead)  # so that the reapers of many workers share the work
        for claim in dead:
            self._end(claim)

    def _end(self, claim: Claim) -> None:
        """End one run as lost, unless it has an end already."""
        taken = claim.by(self._worker)
        if not self._book.change(claim, taken):
            return  # its owner is back, or another reaper was faster
        info = self._book.info(claim.run)
        begun = info is not None and info.state is not State.STARTING  # else it has stored nothing
        after = info.after if info is not None else 0
        state, events = find_end(self._log, taken, after, self._book.waiting) if begun else (None, 0)
        if state is None:
            written = write_end(self._log, taken, Outcome(State.LOST, Actor.REAPER), events)
            if written is Written.ANOTHER:  # its owner's end was under way
                state, events = find_end(self._log, taken, after, self._book.waiting)
            elif written is Written.OURS:
                self._stats.runs_ended[State.LOST] += 1
                logger.warning("%s is lost after %d events: its worker %s has gone", claim.run, events, claim.worker)
            elif not begun:  # its start was about to be refused
                self._book.release(taken)
                return
        self._book.end(Info.of(claim, state or State.LOST, after, events))
        self._book.release(taken)
