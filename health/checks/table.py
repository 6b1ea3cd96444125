"""The checks: small pure functions over a snapshot, in one table for the probes, ``?verbose`` and docs/health.md.

There are three questions:

    live      Can this process make progress? Only faults that a restart repairs count, never a dependency.
    ready     Does this *pod* deliver? Every worker counts, whichever of them answers.
    started   Has the pod been up once? After the first yes, the answer stays yes.

A verdict is None if the check passed, else the reason in words.

With several workers, the pod is *complete* if as many workers of the present generation run and beat as gunicorn is
told to keep. Draining workers make the pod unready only if it is not complete: on SIGTERM all workers drain, so the
first one makes the pod unready; on SIGHUP and TTOU the draining workers are surplus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ..signs.board import BEAT_MAX_AGE, BOOTING, DRAINING, RUNNING, Record

Question = Literal["live", "ready", "started"]

# Seconds without an answer until the log counts as unreachable. It answers the tailer at least once a second, even
# without events.
TAIL_MAX_AGE: Final = 5.0

# Seconds for which a refused append counts, unless one succeeds meanwhile. The next publish may be an hour away.
APPEND_FAILED_MAX_AGE: Final = 30.0

# A reason is one short line, because the kubelet reads only 10 KB of an answer.
REASON_MAX_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits, in seconds.

    strict: HEALTH_READY_STRICT: an unreachable log makes the pod unready instead of degraded.
    """

    canary_max_age: float = 5.0
    loop_lag_max: float = 2.0
    beat_max_age: float = BEAT_MAX_AGE
    tail_max_age: float = TAIL_MAX_AGE
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a verdict may read, taken at one moment. Times are monotonic seconds.

    workers: the board's records, with the present state of the answering worker.
    expected, generation, started: the board's.
    lag: this process's loop lag, seconds.
    has_hub: there is an ``sse`` extension to watch.
    log_ready, canary: this process's own, for ``started``.
    """

    now: float
    workers: tuple[Record, ...] = ()
    expected: int = 1
    generation: int = 1
    lag: float = 0.0
    started: bool = True
    has_hub: bool = True
    log_ready: bool = True
    canary: float = 0.0
    limits: Limits = Limits()

    def current(self, *states: str) -> list[Record]:
        """Return the workers of the present generation in one of these states."""
        return [w for w in self.workers if w.generation >= self.generation and w.state in states]

    def beats(self, worker: Record) -> bool:
        return self.now - worker.beat <= self.limits.beat_max_age

    def running(self) -> list[Record]:
        """Return the workers of the present generation that run and beat."""
        return [worker for worker in self.current(RUNNING) if self.beats(worker)]

    @property
    def complete(self) -> bool:
        return len(self.running()) >= self.expected


Verdict = Callable[[Snapshot], str | None]


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table.

    name: as ``?verbose`` shows it.
    questions: the answers it counts for.
    verdict: see the module's docstring.
    asks: the question that it answers, for the docs.
    degrades: a failure makes the pod degraded, not unready, unless HEALTH_READY_STRICT is set.
    """

    name: str
    questions: frozenset[Question]
    verdict: Verdict
    asks: str
    degrades: bool = False


def _named(worker: Record) -> str:
    return f"worker {worker.slot} (pid {worker.pid})"


def _loop(snapshot: Snapshot) -> str | None:
    if snapshot.lag <= snapshot.limits.loop_lag_max:
        return None
    return f"the event loop lags by {snapshot.lag:.1f} s, the limit is {snapshot.limits.loop_lag_max:g} s"


def _log(snapshot: Snapshot) -> str | None:
    return None if snapshot.log_ready else "the log is not open yet, or the tailer has not caught up with it"


def _first_canary(snapshot: Snapshot) -> str | None:
    return None if snapshot.canary or not snapshot.has_hub else "the first canary has not arrived yet"


def _startup(snapshot: Snapshot) -> str | None:
    return None if snapshot.started else "the pod has not started yet: /startupz?verbose says why"


def _workers(snapshot: Snapshot) -> str | None:
    for worker in snapshot.current(RUNNING):
        if not snapshot.beats(worker):
            age = snapshot.now - worker.beat
            return f"{_named(worker)} has not beaten for {age:.1f} s: dead, stopped or stuck"
    beating = snapshot.running() + [w for w in snapshot.current(DRAINING) if snapshot.beats(w)]
    absent = snapshot.expected - len(beating)
    if absent <= 0:
        return None
    starting = min(len(snapshot.current(BOOTING)), absent)
    what = f"{starting} still starting" if starting else "none of them starting"
    return f"{absent} of {snapshot.expected} workers missing, {what}"


def _drain(snapshot: Snapshot) -> str | None:
    draining = snapshot.current(DRAINING)
    if not draining or snapshot.complete:
        return None
    runs = draining[0].runs
    return f"{_named(draining[0])} is draining" + (f", and waits for its runs: {runs}" if runs else "")


def _hub(snapshot: Snapshot) -> str | None:
    for worker in snapshot.running():
        if not worker.hub_alive:
            return f"the hub of {_named(worker)} has stopped"
    return None


def _canary(snapshot: Snapshot) -> str | None:
    if not snapshot.has_hub:
        return None
    for worker in snapshot.running():
        if not worker.canary:
            return f"{_named(worker)} has delivered no event yet"
        age = snapshot.now - worker.canary
        if age > snapshot.limits.canary_max_age:
            return f"{_named(worker)} has delivered no event for {age:.1f} s"
    return None


def _log_tail(snapshot: Snapshot) -> str | None:
    ages = [worker.tail_age + snapshot.now - worker.beat for worker in snapshot.running()]
    if not snapshot.has_hub or max(ages, default=0.0) <= snapshot.limits.tail_max_age:
        return None
    return f"the log last answered {max(ages):.1f} s ago"


def _appends(snapshot: Snapshot) -> str | None:
    for worker in snapshot.running():
        age = snapshot.now - worker.append_failed
        if worker.append_failed and age <= APPEND_FAILED_MAX_AGE:
            return f"the log refused an append of {_named(worker)} {age:.1f} s ago: publishing answers 503"
    return None


TABLE: Final = (
    Check("loop", frozenset({"live"}), _loop, "is this process's event-loop lag within HEALTH_LOOP_LAG_MAX?"),
    Check("log", frozenset({"started"}), _log, "is the log open, and has the tailer caught up with it once?"),
    Check("first-canary", frozenset({"started"}), _first_canary, "has an event been delivered once?"),
    Check("startup", frozenset({"ready"}), _startup, "has a worker of this pod passed /startupz once?"),
    Check("workers", frozenset({"ready"}), _workers, "does every expected worker beat?"),
    Check("drain", frozenset({"ready"}), _drain, "is no worker draining that the pod needs?"),
    Check("hub", frozenset({"ready"}), _hub, "do the threads of each worker's hub run?"),
    Check("canary", frozenset({"ready"}), _canary, "is each canary younger than HEALTH_CANARY_MAX_AGE?"),
    Check("log-tail", frozenset({"ready"}), _log_tail, "did the log answer within the last 5 s?", degrades=True),
    Check("appends", frozenset({"ready"}), _appends, "did the log accept the last publish?", degrades=True),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One check's outcome. ``reason``: None if it passed; ``counted``: False if it only degrades the pod."""

    name: str
    reason: str | None
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one question."""

    question: Question
    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        return all(line.reason is None or not line.counted for line in self.lines)

    def text(self, *, verbose: bool = False) -> str:
        """Return the answer's body, in the form of the Kubernetes API server's health endpoints.

        It is ``ok``, or a line for each failing check; with ``verbose`` a line for each check, and a summary.
        """
        if self.ok and not verbose:
            return "ok\n"
        shown = [_shown(line) for line in self.lines if verbose or (line.reason is not None and line.counted)]
        if verbose:
            shown.append(f"{_NAMES[self.question]} check {'passed' if self.ok else 'failed'}\n")
        return "".join(shown)


_NAMES: Final[dict[Question, str]] = {"live": "healthz", "ready": "readyz", "started": "startupz"}


def _shown(line: Line) -> str:
    if line.reason is None:
        return f"[+]{line.name} ok\n"
    # Threat: the reason of an app's check forges a line of this answer, or pushes the rest beyond the 10 KB.
    reason = " ".join(line.reason.split())[:REASON_MAX_CHARS]
    degraded = "" if line.counted else " (degraded, not counted: HEALTH_READY_STRICT is off)"
    return f"[-]{line.name} failed: {reason}{degraded}\n"


def ask(question: Question, checks: Iterable[Check], snapshot: Snapshot) -> Report:
    """Answer one question from the checks that count for it."""
    lines = []
    for check in checks:
        if question in check.questions:
            try:
                reason = check.verdict(snapshot)
            except Exception as error:  # a broken check has failed
                reason = f"the check itself failed: {type(error).__name__}"
            lines.append(Line(check.name, reason, snapshot.limits.strict or not check.degrades))
    return Report(question, tuple(lines))
