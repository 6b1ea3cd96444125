"""Decides what to run, and in which order, so that a report is complete within any time.

A *step* is one round of one case over its peers. Without a budget the plan is every step of every scenario. With a
budget it is a queue, the most telling steps first: what decides the bars, once; then the other tables with the nearest
peers; then more rounds of the first; then what completes the tables. A step runs if the time left suffices, by the pace
of the steps before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from bench import peers, scenarios
from bench.methods import WARM_UP, Case
from bench.peers.base import Peer
from bench.scenarios import Scenario

# Seconds, on an idle machine.
START_AND_STOP = 0.8
SETTLING = 1.5  # until a server's memory no longer changes
CEILING_SECONDS = 3.0  # the most that the bare sender runs
RESERVE = 10.0  # for the report, and for the last step's error

SAFE = 0.9  # share of a budget to plan for, because estimates err
SHORTENINGS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)  # factors for the measured seconds, if the budget is small


@dataclass(frozen=True)
class Step:
    """One round of one case, over some peers."""

    scenario: Scenario
    case: Case
    peers: tuple[Peer, ...]
    number: int  # the round's, from 0
    joins: tuple[int, ...] = ()  # events per `send` of the bare sender, which runs first

    def in_turn(self) -> Iterator[Peer]:
        """Return the peers as A B C, in the next round as C B A, and so on."""
        yield from self.peers if self.number % 2 == 0 else reversed(self.peers)

    def estimate(self) -> float:
        """Estimate how long the step takes, in seconds."""
        streams = self.case.get("streams", 0)
        took = len(self.joins) * min(CEILING_SECONDS, self.scenario.seconds)
        for peer in self.peers:
            if self.scenario.misfit(peer, self.case):
                continue
            opening = streams / peer.opens_per_second
            one = opening + peer.target.settle + streams * peer.target.settle_each + WARM_UP + self.scenario.seconds
            took += START_AND_STOP + one * self.scenario.loads
            took += SETTLING if self.scenario.name == "idle" else 0
            took += opening if self.scenario.name == "storm" else 0
        return took

    def title(self) -> str:
        """Describe the step, for the list of what was left out."""
        words = f"{self.scenario.title.partition(':')[0]}, {scenarios.label(self.case)}"
        names = [peer.name for peer in self.peers if not self.scenario.misfit(peer, self.case)]
        return words if "headwater" in names else f"{words} ({', '.join(names)})"


class Clock:
    """The time left, and whether a step fits into it."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._estimated = self._took = 0.0

    def left(self, elapsed: float) -> float:
        """Return the seconds left, without the reserve."""
        return float("inf") if self._seconds is None else self._seconds - elapsed - RESERVE

    def took(self, step: Step, seconds: float) -> None:
        """Learn the pace from a step that ran."""
        self._estimated += step.estimate()
        self._took += seconds

    def fits(self, step: Step, elapsed: float) -> bool:
        """Say whether a step would end in time, at the pace so far."""
        pace = self._took / self._estimated if self._estimated else 1.0
        return step.estimate() * max(pace, 0.7) <= self.left(elapsed)


def everything(chosen: Iterable[Scenario], ready: list[Peer]) -> list[Step]:
    """Return all rounds of all cases of all peers, one scenario after the other."""
    return [
        Step(scenario, case, concerned, number, scenario.joins)
        for scenario in chosen
        if (concerned := tuple(peer for peer in ready if scenario.concerns(peer)))
        for number in range(scenario.rounds)
        for case in scenario.cases
    ]


CORE = ("headwater", "go", "nchan")
SYNC = ("headwater-sync",)  # only publishes differ
DURABLE = tuple(name for name in peers.DEFAULT if peers.KNOWN[name].is_durable and not name.startswith("headwater"))
HUBS = ("mercure-local", "centrifugo", "centrifugo-redis")
MATTER = (*CORE, *DURABLE, *HUBS)  # what people would choose instead
NODE = ("better-sse",)
SLOW = tuple(name for name in peers.DEFAULT if name not in (*MATTER, *NODE, *SYNC))  # Python, without this project

FIRST, ONCE, SECOND, THIRD, LAST = range(5)


@dataclass(frozen=True)
class Row:
    """Which peers run which cases of a scenario, at which stage of a budget, and for how long."""

    stage: int
    scenario: str
    peers: tuple[str, ...]
    seconds: float
    where: Case  # a case belongs to this row if it has all of this

    def steps(self, ready: list[Peer], number: int, shortening: float) -> list[Step]:
        """Return the steps of one round."""
        scenario = replace(scenarios.KNOWN[self.scenario], seconds=self.seconds * shortening)
        wanted = scenario.only or self.peers
        concerned = tuple(peer for peer in ready if peer.name in wanted and scenario.concerns(peer))
        cases = [case for case in scenario.cases if self.where.items() <= case.items()]
        joins = scenario.joins if "headwater" in self.peers else ()  # once is enough
        return [
            Step(scenario, case, concerned, number, joins)
            for case in cases
            if not all(scenario.misfit(peer, case) for peer in concerned)
        ]


MAIN: Case = {"size": 100, "streams": 1000}

ROWS = [
    # what decides the bars
    Row(FIRST, "saturation", CORE, 4, MAIN),
    Row(FIRST, "saturation", CORE, 3, {"size": 100, "streams": 100}),
    Row(FIRST, "latency", CORE, 8, {"streams": 2000}),
    Row(FIRST, "publish", (*CORE, *SYNC, *DURABLE), 3, {"publishers": 1}),
    Row(FIRST, "publish", CORE, 3, {"publishers": 16}),
    Row(FIRST, "publish", CORE, 3, {"batch": 1000}),
    Row(FIRST, "storm", CORE, 1, {}),
    # what hardly varies from round to round, or is measured twice in one
    Row(ONCE, "idle", CORE, 15, {"streams": 10000}),
    Row(ONCE, "slow-readers", CORE, 5, {"never": 1}),
    Row(ONCE, "probes", CORE, 5, {}),
    # every peer that matters in every table, and how things grow
    Row(SECOND, "saturation", (*DURABLE, *HUBS, *NODE), 3, MAIN),
    Row(SECOND, "saturation", (*DURABLE, *HUBS), 2, {"size": 100, "streams": 100}),
    Row(SECOND, "latency", (*DURABLE, *HUBS), 5, {"streams": 2000}),
    Row(SECOND, "publish", HUBS, 3, {"publishers": 1}),
    Row(SECOND, "publish", (*SYNC, *DURABLE, *HUBS), 3, {"publishers": 16}),
    Row(SECOND, "storm", DURABLE, 1, {}),
    Row(SECOND, "idle", (*MATTER, "flask-gevent"), 4, {"streams": 1000}),
    Row(SECOND, "saturation", CORE, 2, {"size": 100, "streams": 10000}),
    Row(SECOND, "channels", (*CORE, "mercure", "centrifugo"), 3, {}),
    Row(SECOND, "logs", (), 2.5, {}),
    Row(SECOND, "workers", (), 2.5, {}),
    Row(SECOND, "idle", CORE, 15, {"streams": 18000}),
    Row(SECOND, "saturation", CORE, 2, {"size": 1024}),
    Row(SECOND, "saturation", CORE, 2, {"size": 16384}),
    # what completes the tables
    Row(THIRD, "latency", CORE, 5, {"streams": 200}),
    Row(THIRD, "latency", CORE, 5, {"streams": 10000}),
    Row(THIRD, "slow-readers", CORE, 5, {"never": 50}),
    Row(THIRD, "slow-readers", HUBS[:2], 3, {"never": 1}),
    Row(THIRD, "probes", ("mercure", "centrifugo"), 3, {}),
    Row(THIRD, "idle", ("mercure", "centrifugo", "durable-streams"), 8, {"streams": 10000}),
    # what nobody would choose for many streams: the main case, and one of them in the other tables
    Row(LAST, "saturation", SLOW, 2, MAIN),
    Row(LAST, "latency", ("flask-gevent",), 4, {"streams": 2000}),
    Row(LAST, "publish", ("flask-gevent",), 2, {"publishers": 1}),
    Row(LAST, "idle", ("flask-gevent",), 6, {"streams": 10000}),
]

# (stage, round). The runs are shortened until all of ESSENTIAL fits; WELCOME takes the rest of the time.
ESSENTIAL = ((FIRST, 0), (ONCE, 0), (SECOND, 0), (FIRST, 1), (FIRST, 2), (THIRD, 0), (LAST, 0))
WELCOME = ((FIRST, 3), (FIRST, 4), (SECOND, 1), (ONCE, 1), (FIRST, 5), (THIRD, 1), (FIRST, 6), (SECOND, 2), (ONCE, 2))


def within(seconds: float, ready: list[Peer]) -> list[Step]:
    """Return the queue for a budget, with runs as long as it allows."""
    for shortening in SHORTENINGS:
        essential = _queue(ESSENTIAL, ready, shortening)
        if sum(step.estimate() for step in essential) <= SAFE * seconds - RESERVE:
            break
    return [*essential, *_queue(WELCOME, ready, shortening)]


def _queue(order: Iterable[tuple[int, int]], ready: list[Peer], shortening: float) -> list[Step]:
    return [
        step
        for stage, number in order
        for row in ROWS
        if row.stage == stage
        for step in row.steps(ready, number, shortening)
    ]
