"""What the log knows of runs: notes that all workers share (``Log.put_note``).

    kind             name        value
    run-channel      a channel   the claim of the run that it has now; "" if that has just been released
    run-lease        a worker    a number that grows with each renewal, while the worker has runs
    run-events       a worker    how many events each of its runs has stored
    run:<channel>    a run       what ``GET /runs/<id>`` answers; kept for a day after the end

A *claim* belongs to one worker at a time. It changes only by compare-and-set, and each change makes it another text, so
of two workers that want to change it one fails. Only the holder of the claim may end the run.

A run's id is ``<channel>~<32 hex digits>``: whoever asks about a run by its id is known to ask about that channel, and
the log looks only at the notes of that channel.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from ..events.model import CHANNEL_PATTERN
from ..log import Log
from .states import OPEN, State

T = TypeVar("T")

#: A run's id.
RUN_PATTERN: Final = re.compile(rf"({CHANNEL_PATTERN.pattern})~[0-9a-f]{{32}}")

#: Seconds that a note of a run is kept: after its end, and before (a claim of a run that lasts longer is renewed).
KEPT: Final = 86_400.0
KEPT_OPEN: Final = 30 * 86_400.0

# Seconds that notes of a worker are kept after it has last put them.
KEPT_OF_WORKERS: Final = 60.0

# Seconds for which a channel that was released has an empty claim.
RELEASED: Final = 60.0

_CLAIMS: Final = "run-channel"
_LEASES: Final = "run-lease"
_EVENTS: Final = "run-events"


class Claim(NamedTuple):
    """A run has its channel.

    worker: whose it is; started: unix ms; closes: its end closes the channel; turn: how often the claim was changed.
    """

    run: str
    channel: str
    worker: str
    started: int
    closes: bool
    turn: int = 0

    def text(self) -> str:
        return _compact([self.run, self.worker, self.started, self.closes, self.turn])

    @classmethod
    @lru_cache(maxsize=10_000)  # a reaper reads the same claims twice a second
    def parse(cls, channel: str, text: str) -> Claim:
        run, worker, started, closes, turn = json.loads(text)
        return cls(run, channel, worker, started, closes, turn)

    def by(self, worker: str) -> Claim:
        """Return the claim as it is after this worker has taken it, or confirmed it."""
        return self._replace(worker=worker, turn=self.turn + 1)


class Info(NamedTuple):
    """What is told about a run.

    started: unix ms; events: stored so far; after: where the log was when it started, so its events come after that.
    """

    run: str
    channel: str
    state: State
    started: int
    events: int
    worker: str
    after: int

    @classmethod
    def of(cls, claim: Claim, state: State, after: int, events: int = 0) -> Info:
        return cls(claim.run, claim.channel, state, claim.started, events, claim.worker, after)

    @property
    def is_open(self) -> bool:
        """The run has not ended."""
        return self.state in OPEN

    def public(self) -> dict[str, Any]:
        """Return what ``GET /runs/<id>`` answers."""
        return {
            "run": self.run,
            "channel": self.channel,
            "state": self.state.value,
            "started": self.started,
            "events": self.events,
            "worker": self.worker,
        }

    def text(self) -> str:
        return _compact(list(self))

    @classmethod
    def parse(cls, text: str) -> Info:
        run, channel, state, *rest = json.loads(text)
        return cls(run, channel, State(state), *rest)


def make_id(channel: str, key: str | None) -> str:
    """Return the id of a run: the same one for the same key, on every pod."""
    if key is None:
        return f"{channel}~{secrets.token_hex(16)}"
    digest = hashlib.sha256(f"{channel}\n{key}".encode()).hexdigest()
    return f"{channel}~{digest[:32]}"


def channel_of(run: str) -> str | None:
    """Return the channel that a run's id names; None if it cannot be an id."""
    match = RUN_PATTERN.fullmatch(run)
    return match and match[1]


class Book:
    """Reads and writes these notes. Every method may wait for the log, and raises LogUnavailable.

    waiting: runs a function that waits (``sse.runtime.cooperation.offload``).
    """

    def __init__(self, log: Log, waiting: Callable[..., Any]) -> None:
        self._log = log
        self.waiting = waiting

    # ── claims ──────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, claim: Claim) -> Claim | None:
        """Claim the channel; return None, or the claim that is there already."""

        def work() -> Claim | None:
            while not self._log.put_note(_CLAIMS, claim.channel, claim.text(), KEPT_OPEN, expected=None):
                present = self._log.notes(_CLAIMS).get(claim.channel)
                if present:
                    return Claim.parse(claim.channel, present)
                if present == "" and self._log.put_note(
                    _CLAIMS, claim.channel, claim.text(), KEPT_OPEN, expected=""
                ):
                    break
            return None

        return self._wait(work)

    def change(self, old: Claim, new: Claim) -> bool:
        """Replace a claim, if it is still as we know it. Return True, too, if an earlier try has done it unnoticed."""

        def work() -> bool:
            if self._log.put_note(_CLAIMS, old.channel, new.text(), KEPT_OPEN, expected=old.text()):
                return True
            return self._log.notes(_CLAIMS).get(old.channel) == new.text()

        return self._wait(work)

    def release(self, claim: Claim) -> None:
        """Give the channel back, if the claim is still as we know it.

        Not by ``drop_note``, which would also drop the claim of the next run. An empty claim is free for all.
        """
        self._wait(lambda: self._log.put_note(_CLAIMS, claim.channel, "", RELEASED, expected=claim.text()))

    def claims(self) -> list[Claim]:
        """Return the claims of all runs that have not ended."""
        found = self._wait(lambda: self._log.notes(_CLAIMS))
        return [Claim.parse(channel, text) for channel, text in found.items() if text]

    # ── leases ──────────────────────────────────────────────────────────────────────────────────────────────

    def put_lease(self, worker: str, number: int) -> None:
        self._wait(lambda: self._log.put_note(_LEASES, worker, str(number), KEPT_OF_WORKERS))

    def leases(self) -> dict[str, str]:
        """Return the leases by worker."""
        return self._wait(lambda: self._log.notes(_LEASES))

    def put_events(self, worker: str, events: dict[str, int]) -> None:
        """Tell how many events each run of this worker has stored."""
        self._wait(lambda: self._log.put_note(_EVENTS, worker, _compact(events), KEPT_OF_WORKERS))

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, info: Info) -> bool:
        """Write down a run that begins; return False if it is known already."""
        return self._wait(
            lambda: self._log.put_note(_kind(info.channel), info.run, info.text(), KEPT_OPEN, expected=None)
        )

    def end(self, info: Info) -> None:
        """Write down a run that has ended."""
        self._wait(lambda: self._log.put_note(_kind(info.channel), info.run, info.text(), KEPT))

    def forget(self, info: Info) -> None:
        self._wait(lambda: self._log.drop_note(_kind(info.channel), info.run))

    def infos(self, channel: str) -> list[Info]:
        """Return what is known of the channel's runs, the newest first."""

        def work() -> list[Info]:
            found = {run: Info.parse(text) for run, text in self._log.notes(_kind(channel)).items()}
            if any(info.is_open for info in found.values()):
                return [self._counted(info) for info in found.values()]
            claimed = self._log.notes(_CLAIMS).get(channel)
            if claimed and (claim := Claim.parse(channel, claimed)).run not in found:
                return [*found.values(), Info.of(claim, State.STARTING, 0)]
            return [*found.values()]

        return sorted(self._wait(work), key=lambda info: (info.started, info.after), reverse=True)

    def info(self, run: str) -> Info | None:
        """Return what is known of a run; None if nothing."""
        channel = channel_of(run)
        return None if channel is None else next((i for i in self.infos(channel) if i.run == run), None)

    def _counted(self, info: Info) -> Info:
        """Return the info with the number of events that its worker last told."""
        if not info.is_open:
            return info
        told = self._log.notes(_EVENTS).get(info.worker)
        return info if told is None else info._replace(events=json.loads(told).get(info.run, info.events))

    def _wait(self, work: Callable[[], T]) -> T:
        found: T = self.waiting(work)
        return found


def _kind(channel: str) -> str:
    return f"run:{channel}"


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
