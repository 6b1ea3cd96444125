"""The kubelet's decisions on a simulated clock: minutes of a pod's life in microseconds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.kubelet.core import (
    EFFECTS,
    PROBES,
    TRANSITIONS,
    BackOff,
    Command,
    Happening,
    Machine,
    Outcome,
    Phase,
    RunProbe,
    SendSignal,
    StartContainer,
)
from tests.support.kubelet.specs import BackOffSpec, Kind, PodSpec, ProbeSpec, Scale, TcpSocket

Answer = Callable[[float], Outcome]
Happens = Callable[[float], list[Command]]
GOOD: Answer = lambda at: Outcome.SUCCESS  # noqa: E731
BAD: Answer = lambda at: Outcome.FAILURE  # noqa: E731


def good_after(moment: float) -> Answer:
    return lambda at: Outcome.SUCCESS if at >= moment else Outcome.FAILURE


def bad_between(begin: float, end: float) -> Answer:
    return lambda at: Outcome.FAILURE if begin <= at < end else Outcome.SUCCESS


def probe(**values: Any) -> ProbeSpec:
    return ProbeSpec(TcpSocket(1), **values)


STARTUP, LIVENESS, READINESS = Kind.STARTUP, Kind.LIVENESS, Kind.READINESS


def pod(probes: dict[Kind, ProbeSpec] | None = None, grace: float = 30.0) -> PodSpec:
    return PodSpec("pod", "web", ("true",), probes=probes or {}, grace=grace)


class World:
    """Runs a machine against given answers, without waiting.

    answers: each probe's outcome; took: how long a probe runs; lives: how long each container lives on its own (the last
    one for ever); ends: the time from SIGTERM to its exit (None: it ignores SIGTERM).
    """

    def __init__(
        self,
        spec: PodSpec,
        answers: dict[Kind, Answer] | None = None,
        *,
        took: float = 0.0,
        lives: tuple[float, ...] = (),
        ends: float | None = 1.0,
    ) -> None:
        self.machine = Machine(spec)
        self.answers = answers or {}
        self.took = took
        self.lives = lives
        self.ends = ends
        self.probes: list[tuple[float, Kind]] = []
        self.signals: list[tuple[float, bool]] = []
        self.ended = 0  # the number of the container whose end was reported
        self._agenda: list[tuple[float, int, Happens]] = []
        self._order = itertools.count()

    def at(self, moment: float, what: Happens) -> World:
        heapq.heappush(self._agenda, (moment, next(self._order), what))
        return self

    def run(self, until: float) -> list[tuple[float, str]]:
        """Return the timeline as (seconds, reason), after this many seconds."""
        now = 0.0
        while True:
            self._obey(now, self.machine.tick(now))
            due = self.machine.next_at()
            times = [time for time in (due, self._agenda[0][0] if self._agenda else None) if time is not None]
            if not times or min(times) > until:
                break
            now = max(now, min(times))
            while self._agenda and self._agenda[0][0] <= now:
                _, _, what = heapq.heappop(self._agenda)
                self._obey(now, what(now))
        return [(round(event.at, 6), event.reason) for event in self.machine.timeline]

    def _obey(self, now: float, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, StartContainer):
                if command.restarts < len(self.lives):
                    self.at(now + self.lives[command.restarts], self._exit_of(command.restarts + 1))
            elif isinstance(command, SendSignal):
                self.signals.append((round(now, 6), command.kill))
                delay = 0.0 if command.kill else self.ends
                if delay is not None:
                    self.at(now + delay, self._exit_of(self.machine.starts))
            elif isinstance(command, RunProbe):
                self.probes.append((round(now, 6), command.kind))
                outcome = self.answers.get(command.kind, GOOD)(now)
                self.at(now + self.took, self._outcome_of(command, outcome))

    def _outcome_of(self, probe: RunProbe, outcome: Outcome) -> Happens:
        return lambda at: self.machine.probed(at, probe, outcome, "no")

    def _exit_of(self, number: int) -> Happens:
        return lambda at: self._exit(at, number)

    def _exit(self, now: float, number: int) -> list[Command]:
        if number <= self.ended or number != self.machine.starts:
            return []
        self.ended = number
        return self.machine.exited(now, 0)

    def times(self, kind: Kind) -> list[float]:
        return [at for at, what in self.probes if what is kind]


def without(timeline: list[tuple[float, str]], *reasons: str) -> list[tuple[float, str]]:
    return [entry for entry in timeline if entry[1] not in reasons]


# ── thresholds, delays, periods ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "answer", "expected"),
    [
        pytest.param(probe(), GOOD, [(0, "Started"), (0, "Ready")], id="ready with the first success"),
        pytest.param(probe(), BAD, [(0, "Started")], id="not ready before the first success"),
        pytest.param(probe(period=5), good_after(12), [(0, "Started"), (15, "Ready")], id="ready late"),
        pytest.param(
            probe(period=5, success_threshold=3), GOOD, [(0, "Started"), (10, "Ready")], id="three in a row to be ready"
        ),
        pytest.param(
            probe(period=5, failure_threshold=3),
            bad_between(10, 20),
            [(0, "Started"), (0, "Ready")],
            id="two failures of three change nothing",
        ),
        pytest.param(
            probe(period=5, failure_threshold=3),
            bad_between(10, 25),
            [(0, "Started"), (0, "Ready"), (20, "NotReady"), (25, "Ready")],
            id="the third failure in a row does",
        ),
        pytest.param(
            probe(period=5, failure_threshold=1),
            bad_between(10, 11),
            [(0, "Started"), (0, "Ready"), (10, "NotReady"), (15, "Ready")],
            id="a threshold of one is impatient",
        ),
        pytest.param(
            probe(period=5, failure_threshold=2),
            lambda at: Outcome.FAILURE if at % 10 else Outcome.SUCCESS,
            [(0, "Started"), (0, "Ready")],
            id="failures that alternate with successes never count up",
        ),
        pytest.param(
            probe(period=5, failure_threshold=2),
            lambda at: Outcome.UNKNOWN if at >= 10 else Outcome.SUCCESS,
            [(0, "Started"), (0, "Ready")],
            id="unknown outcomes are thrown away",
        ),
    ],
)
def test_readiness_follows_its_thresholds(spec: ProbeSpec, answer: Answer, expected: list[tuple[float, str]]) -> None:
    world = World(pod({READINESS: spec}), {READINESS: answer})
    assert without(world.run(60), "Unhealthy") == expected
    assert world.machine.restarts == 0, "readiness restarts nothing"


def test_without_a_readiness_probe_a_container_is_ready_when_it_runs() -> None:
    assert World(pod()).run(60) == [(0, "Started"), (0, "Ready")]


@pytest.mark.parametrize(
    ("spec", "times"),
    [
        pytest.param(probe(period=10), [0, 10, 20, 30], id="no delay"),
        pytest.param(probe(period=10, initial_delay=15), [20, 30], id="the first look after the delay"),
        pytest.param(probe(period=10, initial_delay=20), [20, 30], id="a delay of whole periods"),
        pytest.param(probe(period=10, initial_delay=3), [10, 20, 30], id="a delay below the period"),
    ],
)
def test_probes_are_made_every_period_after_the_initial_delay(spec: ProbeSpec, times: list[float]) -> None:
    world = World(pod({LIVENESS: spec}))
    world.run(35)
    assert world.times(LIVENESS) == times


def test_a_probe_is_never_made_while_the_one_before_still_runs() -> None:
    world = World(pod({LIVENESS: probe(period=5)}), took=12)
    world.run(40)
    assert world.times(LIVENESS) == [0, 12, 24, 36]


def test_every_failed_probe_is_an_event_even_below_the_threshold() -> None:
    world = World(pod({READINESS: probe(period=5)}), {READINESS: bad_between(5, 15)})
    assert [at for at, reason in world.run(30) if reason == "Unhealthy"] == [5, 10]
    assert world.machine.timeline[-1].message == "Readiness probe failed: no"


# ── liveness and start-up ─────────────────────────────────────────────────────────────────────────────────


def test_a_failed_liveness_probe_restarts_the_container() -> None:
    world = World(pod({LIVENESS: probe(period=10)}), {LIVENESS: bad_between(30, 55)})
    assert without(world.run(100), "Unhealthy") == [
        (0, "Started"),
        (0, "Ready"),
        (50, "Killing"),
        (51, "Exited"),
        (51, "NotReady"),
        (51, "Started"),
        (51, "Ready"),
    ]
    killing = [event for event in world.machine.timeline if event.reason == "Killing"]
    assert killing[0].message == "Container web failed liveness probe, will be restarted"


def test_the_other_probes_wait_for_the_startup_probe() -> None:
    spec = {STARTUP: probe(period=2, failure_threshold=30), LIVENESS: probe(), READINESS: probe(initial_delay=10)}
    world = World(pod(spec), {STARTUP: good_after(20)})
    timeline = without(world.run(45), "Unhealthy")
    assert timeline == [(0, "Started"), (30, "Ready")]
    assert world.times(STARTUP) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20], "and it ends with its success"
    assert world.times(LIVENESS)[0] == 20
    assert world.times(READINESS)[0] == 30, "its delay begins with the start-up's success"


def test_a_slow_start_without_a_startup_probe_is_restarted_for_ever() -> None:
    """Failure mode 3. It needs 40 s, the liveness probe leaves it 30."""

    def since_start(at: float) -> Outcome:
        begun = max(event.at for event in world.machine.timeline if event.reason == "Started")
        return Outcome.SUCCESS if at - begun >= 40 else Outcome.FAILURE

    world = World(pod({LIVENESS: probe(period=10)}), {LIVENESS: since_start})
    world.run(1800)
    assert world.machine.restarts >= 8
    patient = World(
        pod({LIVENESS: probe(period=10), STARTUP: probe(period=10, failure_threshold=6)}),
        {LIVENESS: since_start, STARTUP: since_start},
    )
    world = patient
    patient.run(1800)
    assert patient.machine.restarts == 0


def test_a_startup_probe_that_never_succeeds_restarts_the_container_when_its_budget_is_spent() -> None:
    world = World(pod({STARTUP: probe(period=2, failure_threshold=5)}), {STARTUP: BAD})
    assert without(world.run(9.5), "Unhealthy") == [(0, "Started"), (8, "Killing"), (9, "Exited"), (9, "Started")]
    assert not world.machine.ready


def test_a_container_that_is_being_killed_is_probed_for_readiness_only() -> None:
    spec = {LIVENESS: probe(period=5), READINESS: probe(period=5)}
    world = World(pod(spec, grace=20), {LIVENESS: BAD}, ends=None)
    world.run(29)
    assert world.times(LIVENESS) == [0, 5, 10]
    assert world.times(READINESS) == [0, 5, 10, 15, 20, 25]


def test_an_outcome_that_arrives_after_its_container_ended_is_dropped() -> None:
    world = World(pod({READINESS: probe(period=10)}), {READINESS: GOOD}, took=3, lives=(1,))
    assert world.run(3.5) == [(0, "Started"), (1, "Exited"), (1, "Started")]


@pytest.mark.parametrize(
    ("of_probe", "killed_at"), [pytest.param(None, 40, id="the pod's"), pytest.param(5.0, 15, id="the probe's own")]
)
def test_a_condemned_container_that_ignores_sigterm_is_killed_after_the_grace_period(
    of_probe: float | None, killed_at: float
) -> None:
    spec = probe(period=5, failure_threshold=3, grace=of_probe)
    world = World(pod({LIVENESS: spec}, grace=30), {LIVENESS: bad_between(0, 20)}, ends=None)
    world.run(killed_at + 1)
    assert world.signals == [(10, False), (killed_at, True)]
    assert world.machine.restarts == 1


# ── crashes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_crashes_are_restarted_at_once_then_after_10_s_doubling_to_5_minutes() -> None:
    world = World(pod(), lives=(1,) * 9)
    timeline = world.run(2000)
    starts = [at for at, reason in timeline if reason == "Started"]
    ends = [at for at, reason in timeline if reason == "Exited"]
    waits = [start - end for start, end in zip(starts[1:], ends, strict=False)]
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert sum(reason == "BackOff" for _, reason in timeline) == 8


@pytest.mark.parametrize(("ran", "wait"), [(599.0, 20.0), (600.0, 0.0)])
def test_ten_minutes_without_a_crash_are_forgiven(ran: float, wait: float) -> None:
    back_off = BackOff(BackOffSpec())
    assert [back_off.after(1), back_off.after(1)] == [0, 10]
    assert back_off.after(ran) == wait


def test_a_container_that_waits_is_not_ready_and_not_probed() -> None:
    world = World(pod({LIVENESS: probe(period=1)}), lives=(5, 5))
    world.run(14)
    assert not [at for at in world.times(LIVENESS) if 10 < at < 14]
    assert (world.machine.phase, world.machine.ready) == (Phase.WAITING, False)


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deleted_pod_is_out_of_the_endpoints_at_once_and_has_its_grace_period() -> None:
    world = World(pod({READINESS: probe(period=5), LIVENESS: probe(period=5)}, grace=30), ends=None)
    world.at(12, world.machine.delete)
    world.run(41)
    assert (world.machine.ready, world.machine.endpoint_ready) == (True, False)
    assert world.signals == [(12, False)]
    assert world.times(LIVENESS)[-1] == 10, "liveness ends with the deletion"
    assert world.times(READINESS)[-1] == 40, "readiness goes on"
    world.run(50)
    assert world.signals[-1] == (42, True)
    assert world.machine.phase is Phase.ENDED


def test_a_pod_that_ends_in_time_is_not_killed_nor_restarted() -> None:
    world = World(pod(grace=30), ends=7)
    world.at(5, world.machine.delete)
    assert world.run(300) == [(0, "Started"), (0, "Ready"), (5, "Killing"), (12, "Exited"), (12, "NotReady")]
    assert world.signals == [(5, False)]


def test_readiness_during_termination_is_reported() -> None:
    world = World(pod({READINESS: probe(period=2, failure_threshold=1)}), {READINESS: bad_between(10, 99)}, ends=15)
    world.at(9, world.machine.delete)
    assert (10, "NotReady") in world.run(30)


def test_a_pod_that_is_deleted_while_it_waits_is_gone_at_once() -> None:
    world = World(pod(), lives=(1, 1))
    world.at(5, world.machine.delete)
    world.run(300)
    assert (world.machine.phase, world.machine.starts, world.signals) == (Phase.ENDED, 2, [])


def test_a_pod_that_is_deleted_while_it_is_condemned_gets_no_second_sigterm() -> None:
    world = World(pod({LIVENESS: probe(period=5)}, grace=30), {LIVENESS: BAD}, ends=None)
    world.at(15, world.machine.delete)
    world.run(60)
    assert world.signals == [(10, False), (40, True)]
    assert world.machine.phase is Phase.ENDED


def test_a_second_deletion_changes_nothing() -> None:
    world = World(pod(), ends=None)
    world.at(5, world.machine.delete).at(20, world.machine.delete)
    world.run(60)
    assert world.signals == [(5, False), (35, True)]


# ── the tables ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tables_are_complete() -> None:
    assert PROBES.keys() == set(Phase)
    assert EFFECTS.keys() == {(kind, o) for kind in Kind for o in (Outcome.SUCCESS, Outcome.FAILURE)}
    running = {Phase.STARTING, Phase.RUNNING, Phase.RESTARTING, Phase.TERMINATING}
    assert {phase for phase, what in TRANSITIONS if what is Happening.EXITED} == running
    assert {phase for phase, what in TRANSITIONS if what is Happening.DELETED} == running - {Phase.TERMINATING} | {
        Phase.WAITING
    }
    assert not [phase for phase, _ in TRANSITIONS if phase is Phase.ENDED]


def test_a_scale_shrinks_periods_but_not_what_the_process_needs() -> None:
    spec = pod({LIVENESS: probe(initial_delay=20, period=10, timeout=2, grace=60)}, grace=40)
    small = spec.scaled(Scale(probes=0.1, back_off=0.01))
    assert small.probes[LIVENESS] == probe(initial_delay=2, period=1, timeout=0.5, grace=60)
    assert (small.grace, small.back_off) == (40, BackOffSpec(0.1, 3.0, 6.0))
    assert spec.scaled(Scale()) == spec
