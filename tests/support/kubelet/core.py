"""What the kubelet decides about one container, as a pure state machine: no clock, no process, no socket.

The rules are data: ``PROBES`` says which probes run in which phase, ``EFFECTS`` what a probe's verdict causes,
``TRANSITIONS`` where each event leads. ``Machine`` applies them to given times, and returns commands for its caller,
which runs the process and the probes.

Sources: Kubernetes documentation, "Pod Lifecycle" (PL) and "Configure Liveness, Readiness and Startup Probes" (CP), by
section; where they leave something open, what the kubelet does (``pkg/kubelet/prober/worker.go``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from tests.support.kubelet.specs import BackOffSpec, Kind, PodSpec, ProbeSpec


class Outcome(Enum):
    """PL "Probe outcome"."""

    SUCCESS = "Success"
    FAILURE = "Failure"
    UNKNOWN = "Unknown"


class Phase(Enum):
    WAITING = "Waiting"  # not running; to be started, at once or after a back-off (PL "Container states")
    STARTING = "Starting"  # running; its startup probe has not succeeded yet
    RUNNING = "Running"
    RESTARTING = "Restarting"  # a probe condemned it: it was sent SIGTERM, SIGKILL follows
    TERMINATING = "Terminating"  # the pod was deleted: it was sent SIGTERM, SIGKILL follows
    ENDED = "Ended"


class Happening(Enum):
    STARTED = "the process was started"
    ARRIVED = "the startup probe succeeded, or there is none"
    CONDEMNED = "the startup or liveness probe failed"
    EXITED = "the process has ended"
    DELETED = "the pod was deleted"


W, S, R, X, T, E = Phase
TRANSITIONS: Final[dict[tuple[Phase, Happening], Phase]] = {
    (W, Happening.STARTED): S,
    (W, Happening.DELETED): E,
    (S, Happening.ARRIVED): R,
    # PL "Types of probe": if the startup / liveness probe fails, the kubelet kills the container, and it is
    # subjected to its restart policy. A Deployment's is always Always.
    (S, Happening.CONDEMNED): X,
    (R, Happening.CONDEMNED): X,
    (S, Happening.EXITED): W,
    (R, Happening.EXITED): W,
    (X, Happening.EXITED): W,
    (S, Happening.DELETED): T,
    (R, Happening.DELETED): T,
    (X, Happening.DELETED): T,
    # PL "Pod-level container restart policy" is about containers that exit while the pod is to run.
    (T, Happening.EXITED): E,
}

PROBES: Final[dict[Phase, tuple[Kind, ...]]] = {
    Phase.WAITING: (),
    # PL "Types of probe": "All other probes are disabled if a startup probe is provided, until it succeeds."
    Phase.STARTING: (Kind.STARTUP,),
    Phase.RUNNING: (Kind.LIVENESS, Kind.READINESS),
    # CP "Define readiness probes": "Readiness probes runs on the container during its whole lifecycle." The other two
    # are on hold until there is a new container (worker.go: onHold), and stop when the pod is deleted
    # (worker.go: "Graceful shutdown of the pod").
    Phase.RESTARTING: (Kind.READINESS,),
    Phase.TERMINATING: (Kind.READINESS,),
    Phase.ENDED: (),
}


class Effect(Enum):
    NONE = "nothing changes"
    ARRIVE = "the container has started"
    CONDEMN = "the container is to be restarted"
    READY = "the container is ready"
    UNREADY = "the container is not ready"


EFFECTS: Final[dict[tuple[Kind, Outcome], Effect]] = {
    (Kind.STARTUP, Outcome.SUCCESS): Effect.ARRIVE,
    (Kind.STARTUP, Outcome.FAILURE): Effect.CONDEMN,
    (Kind.LIVENESS, Outcome.SUCCESS): Effect.NONE,
    (Kind.LIVENESS, Outcome.FAILURE): Effect.CONDEMN,
    (Kind.READINESS, Outcome.SUCCESS): Effect.READY,
    (Kind.READINESS, Outcome.FAILURE): Effect.UNREADY,
}


class Event(NamedTuple):
    """A line of ``kubectl describe pod``. at: seconds since the pod began. Ready and NotReady are conditions, and
    Exited is a container status; the other reasons are the kubelet's own."""

    at: float
    reason: str
    message: str


@dataclass(frozen=True)
class StartContainer:
    """Run the container's command. restarts: how often it was restarted before."""

    restarts: int


@dataclass(frozen=True)
class RunProbe:
    """Run one probe and report its outcome for this container (by the number of its start)."""

    kind: Kind
    container: int


@dataclass(frozen=True)
class SendSignal:
    """Send TERM to the main process, or KILL to all of them."""

    kill: bool


Command = StartContainer | RunProbe | SendSignal


class BackOff:
    """PL "How Pods handle problems with containers": the first crash restarts at once, later ones after an exponential
    delay, until the container has run long enough to be forgiven."""

    def __init__(self, spec: BackOffSpec) -> None:
        self._spec = spec
        self._next = 0.0

    def after(self, ran_for: float) -> float:
        """Return how long to wait before a restart, s, after the container ran for this long, s."""
        if ran_for >= self._spec.reset_after:
            self._next = 0.0
        wait = self._next
        self._next = min(wait * 2, self._spec.most) if wait else self._spec.first
        return wait


class Counter:
    """One probe of one container: when it is due, and how many outcomes in a row were the same."""

    def __init__(self, spec: ProbeSpec, begin: float) -> None:
        self.spec = spec
        # The kubelet looks every period, and skips looks before the initial delay has passed. CP "Configure Probes":
        # "If periodSeconds is greater than initialDelaySeconds then the initialDelaySeconds would be ignored."
        self.due = begin + math.ceil(spec.initial_delay / spec.period) * spec.period
        self.in_flight = False
        self._last: Outcome | None = None
        self._run = 0

    def begin(self, now: float) -> None:
        """Note that a probe was sent. The next is a period later, or at this one's end if that is later (Go's ticker
        keeps one tick and drops the others)."""
        self.in_flight = True
        while self.due <= now:
            self.due += self.spec.period

    def end(self, outcome: Outcome) -> Outcome | None:
        """Return the verdict after as many equal outcomes in a row as the threshold; None before."""
        self.in_flight = False
        if outcome is Outcome.UNKNOWN:  # PL "Probe outcome": no action should be taken
            return None
        self._run = self._run + 1 if outcome is self._last else 1
        self._last = outcome
        success = outcome is Outcome.SUCCESS
        threshold = self.spec.success_threshold if success else self.spec.failure_threshold
        return outcome if self._run >= threshold else None


class Machine:
    """One container of one pod. Methods take the time, seconds since the pod began, and return commands."""

    def __init__(self, spec: PodSpec) -> None:
        self.spec = spec
        self.phase = Phase.WAITING
        self.starts = 0
        self.started = False
        self.ready = False
        self.deleted = False
        self.timeline: list[Event] = []
        self._back_off = BackOff(spec.back_off)
        self._start_at = 0.0
        self._running_since = 0.0
        self._kill_at: float | None = None
        self._counters: dict[Kind, Counter] = {}

    @property
    def restarts(self) -> int:
        return max(self.starts - 1, 0)

    @property
    def endpoint_ready(self) -> bool:
        """Return whether Services send it new clients. PL "When should you use a readiness probe?", note: a deleted pod's endpoint
        is not ready, whatever its probe says."""
        return self.ready and not self.deleted

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> list[Command]:
        """Act on the time."""
        commands: list[Command] = []
        if self.phase is Phase.WAITING and now >= self._start_at:
            commands.append(StartContainer(self.starts))
            self._start(now)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._note(now, "Killing", "the grace period is over: SIGKILL")
            commands.append(SendSignal(kill=True))
        for kind in PROBES[self.phase]:
            counter = self._counters.get(kind)
            if counter is not None and not counter.in_flight and now >= counter.due:
                counter.begin(now)
                commands.append(RunProbe(kind, self.starts))
        return commands

    def probed(self, now: float, probe: RunProbe, outcome: Outcome, message: str = "") -> list[Command]:
        """Act on a probe's outcome; one that arrives after its container ended is dropped."""
        counter = self._counters.get(probe.kind)
        if probe.container != self.starts or counter is None:
            return []
        verdict = counter.end(outcome)
        if probe.kind not in PROBES[self.phase]:
            return []
        if outcome is Outcome.FAILURE:  # the kubelet says so each time, even below the threshold
            self._note(now, "Unhealthy", f"{probe.kind.value} probe failed: {message}")
        elif outcome is Outcome.UNKNOWN:  # prober.go; older ones say "probe errored: " and no state
            self._note(now, "Unhealthy", f"{probe.kind.value} probe errored and {message}")
        effect = Effect.NONE if verdict is None else EFFECTS[probe.kind, verdict]
        if effect is Effect.ARRIVE:
            self._arrive(now)
        elif effect is Effect.CONDEMN:
            return self._condemn(now, probe.kind)
        elif effect in (Effect.READY, Effect.UNREADY):
            self._set_ready(now, effect is Effect.READY)
        return []

    def exited(self, now: float, status: int) -> list[Command]:
        """Act on the main process's end; status as ``subprocess.Popen.returncode``."""
        self._note(now, "Exited", f"exit status {status}")
        self._set_ready(now, False)
        self._kill_at = None
        self._counters.clear()
        self.started = False
        self._become(Happening.EXITED)
        if self.phase is Phase.WAITING:
            wait = self._back_off.after(now - self._running_since)
            self._start_at = now + wait
            if wait:
                text = f"Back-off {wait:g}s restarting failed container {self.spec.container}"
                self._note(now, "BackOff", text)
        return []

    def delete(self, now: float) -> list[Command]:
        """Delete the pod (``kubectl delete``, a rollout). PL "Termination of Pods": SIGTERM to the main process of
        each container, and SIGKILL to what is left when the grace period is over."""
        if self.deleted:
            return []
        self.deleted = True
        before = self.phase
        self._become(Happening.DELETED)
        if before is Phase.WAITING:
            return []
        self._note(now, "Killing", f"Stopping container {self.spec.container}")
        if before is Phase.RESTARTING and self._kill_at is not None:
            # It is being stopped already, and gets no second SIGTERM.
            self._kill_at = min(self._kill_at, now + self.spec.grace)
            return []
        self._kill_at = now + self.spec.grace
        return [SendSignal(kill=False)]

    def next_at(self) -> float | None:
        """Return when ``tick`` next has something to do; None if only an event can change that."""
        times = [
            counter.due
            for kind in PROBES[self.phase]
            if (counter := self._counters.get(kind)) is not None and not counter.in_flight
        ]
        if self.phase is Phase.WAITING:
            times.append(self._start_at)
        if self._kill_at is not None:
            times.append(self._kill_at)
        return min(times, default=None)

    # ── what comes of it ──────────────────────────────────────────────────────────────────────────────────

    def _become(self, happening: Happening) -> None:
        self.phase = TRANSITIONS[self.phase, happening]

    def _start(self, now: float) -> None:
        self.starts += 1
        self._running_since = now
        self._become(Happening.STARTED)
        self._note(now, "Started", f"Started container {self.spec.container}")
        if (startup := self.spec.probes.get(Kind.STARTUP)) is not None:
            self._counters[Kind.STARTUP] = Counter(startup, now)
        else:
            self._arrive(now)

    def _arrive(self, now: float) -> None:
        self.started = True
        self._become(Happening.ARRIVED)
        for kind in PROBES[self.phase]:
            if (spec := self.spec.probes.get(kind)) is not None:
                # CP "Configure Probes": "If a startup probe is defined, liveness and readiness probe delays do not
                # begin until the startup probe has succeeded."
                self._counters[kind] = Counter(spec, now)
        # PL "Types of probe": "The default state of readiness before the initial delay is Failure. If a container does
        # not provide a readiness probe, the default state is Success."
        if Kind.READINESS not in self.spec.probes:
            self._set_ready(now, True)

    def _condemn(self, now: float, kind: Kind) -> list[Command]:
        self._become(Happening.CONDEMNED)
        what = f"Container {self.spec.container} failed {kind.value.lower()} probe, will be restarted"
        self._note(now, "Killing", what)
        # CP "Probe-level terminationGracePeriodSeconds": it wins over the pod's.
        grace = self.spec.probes[kind].grace
        self._kill_at = now + (self.spec.grace if grace is None else grace)
        return [SendSignal(kill=False)]

    def _set_ready(self, now: float, ready: bool) -> None:
        if ready != self.ready:
            self.ready = ready
            self._note(now, "Ready" if ready else "NotReady", f"container {self.spec.container}")

    def _note(self, now: float, reason: str, message: str) -> None:
        self.timeline.append(Event(now, reason, message))
