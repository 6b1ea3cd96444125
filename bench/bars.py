"""The bars that Headwater has to reach, and whether it does: the table at the top of the report.

A ratio is the quotient of two medians. Its extremes are the least and the greatest ratio of two runs of the same round.
A bar does not hold if its runs lost, repeated or refused anything.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bench import peers
from bench.methods import Case
from bench.results import CEILING, Results, pick
from bench.tables import OURS, Formatter, count, faults, kilobytes, milliseconds, percent, seconds, table, times


class Measured(NamedTuple):
    """The median, and the extremes of the rounds."""

    value: float
    least: float
    most: float
    rounds: int
    faults: list[str]
    beside: str = ""  # the best other peer, if the ratio is to that


@dataclass(frozen=True)
class Bar:
    """One bar: the figure has to be at least, or at most, `wanted`. A moonshot is a harder bound."""

    what: str
    at_least: bool
    wanted: float | None
    moonshot: float | None
    shown: Formatter
    measure: Callable[[Results], Measured | None]

    def holds(self, found: Measured, bound: float | None) -> str:
        """Say yes or no, or nothing without a bound."""
        if bound is None:
            return ""
        reached = operator.ge if self.at_least else operator.le
        return "yes" if reached(found.value, bound) and not found.faults else "**no**"

    def row(self, results: Results) -> list[str]:
        """Return the bar's row of the table."""
        found = self.measure(results)
        sign = "≥" if self.at_least else "≤"
        bounds = ["" if bound is None else f"{sign} {self.shown(bound)}" for bound in (self.wanted, self.moonshot)]
        if found is None:
            return [self.what, bounds[0], "not measured", "", "", bounds[1], ""]
        if not found.rounds:
            return [self.what, bounds[0], *found.faults, "", "**no**", bounds[1], ""]
        value = self.shown(found.value) + (f" ({found.beside})" if found.beside else "")
        value += "".join(f"; {fault}" for fault in found.faults)
        spread = f"{self.shown(found.least)} – {self.shown(found.most)} ({found.rounds})"
        holds = [self.holds(found, bound) for bound in (self.wanted, self.moonshot)]
        return [self.what, bounds[0], value, spread, holds[0], bounds[1], holds[1]]


def _case(results: Results, scenario: str, where: Case) -> Case | None:
    return next((case for case in results.cases(scenario) if where.items() <= case.items()), None)


def figure(scenario: str, where: Case, metric: str) -> Callable[[Results], Measured | None]:
    """Measure a figure of our own."""

    def measure(results: Results) -> Measured | None:
        case = _case(results, scenario, where)
        if case is None:
            return None
        values = results.values(scenario, OURS, case, metric)
        median = results.median(scenario, OURS, case, metric)
        if median is None:
            failed = any("failed" in run for run in results.runs(scenario, OURS, case))
            return Measured(0.0, 0.0, 0.0, 0, ["failed"]) if failed else None
        return Measured(median, min(values), max(values), len(values), faults(results.runs(scenario, OURS, case)))

    return measure


def over(scenario: str, where: Case, metric: str, peer: str) -> Callable[[Results], Measured | None]:
    """Measure our figure over a peer's."""

    def measure(results: Results) -> Measured | None:
        case = _case(results, scenario, where)
        return None if case is None else _over(results, scenario, case, metric, peer)

    return measure


def _over(results: Results, scenario: str, case: Case, metric: str, peer: str) -> Measured | None:
    ours, theirs = (results.median(scenario, name, case, metric) for name in (OURS, peer))
    if ours is None or not theirs:
        return None
    by_round = [_by_round(results, scenario, name, case, metric) for name in (OURS, peer)]
    ratios = [by_round[0][number] / value for number, value in by_round[1].items() if number in by_round[0] and value]
    value = ours / theirs
    found = faults(results.runs(scenario, OURS, case))
    return Measured(value, min(ratios, default=value), max(ratios, default=value), len(ratios), found)


def _by_round(results: Results, scenario: str, peer: str, case: Case, metric: str) -> dict[int, float]:
    return {
        run["round"]: value
        for run in results.scenarios[scenario]["runs"]
        if run["peer"] == peer and run["case"] == case and (value := pick(run["metrics"], metric)) is not None
    }


def over_best(
    scenario: str, where: Case, metric: str, accepts: Callable[[str], bool]
) -> Callable[[Results], Measured | None]:
    """Measure our figure over the greatest of those peers' whose name is accepted."""

    def measure(results: Results) -> Measured | None:
        case = _case(results, scenario, where)
        if case is None:
            return None
        others = [
            (value, name)
            for name in results.measured_peers(scenario)
            if accepts(name) and not name.startswith(OURS)
            if (value := results.median(scenario, name, case, metric)) is not None
        ]
        if not others:
            return None
        best = max(others)[1]
        found = _over(results, scenario, case, metric, best)
        return found and found._replace(beside=results.peers.get(best, {}).get("title", best))

    return measure


def is_not_go(name: str) -> bool:
    """Say whether this is any other peer than Go."""
    return name != "go"


def is_durable(name: str) -> bool:
    """Say whether this peer has an event on disk before it acknowledges it."""
    return name in peers.KNOWN and peers.KNOWN[name].is_durable


def of_the_ceiling(results: Results) -> Measured | None:
    """Measure, where nothing is joined, writes per second of server CPU over bare sends per second of CPU."""
    case = _case(results, "latency", {"streams": 2000})
    if case is None:
        return None
    limit = results.median("latency", CEILING, {**case, "joined": 1}, "sends_per_cpu_second")
    found = figure("latency", {"streams": 2000}, "writes_per_cpu_second")(results)
    if not limit or found is None or not found.rounds:
        return None
    return found._replace(value=found.value / limit, least=found.least / limit, most=found.most / limit)


AT_SATURATION: Case = {"size": 100, "streams": 1000}
AT_60000: Case = {"streams": 2000, "rate": 30}

BARS = [
    Bar(
        "Saturation, 1,000 streams, 100 B: delivered events/s per core over Go net/http",
        True,
        6,
        10,
        times,
        over("saturation", AT_SATURATION, "events_per_second", "go"),
    ),
    Bar(
        "… over the best other peer",
        True,
        4,
        None,
        times,
        over_best("saturation", AT_SATURATION, "events_per_second", is_not_go),
    ),
    Bar(
        "60,000 deliveries/s: p99 over Go's",
        False,
        0.7,
        0.4,
        times,
        over("latency", AT_60000, "latency_us.p99", "go"),
    ),
    Bar(
        "Nothing joined (60,000 deliveries/s): events written per CPU second over bare `send`s",
        True,
        None,
        0.9,
        percent,
        of_the_ceiling,
    ),
    Bar(
        "RSS per idle stream, 10,000 streams",
        False,
        600,
        None,
        kilobytes,
        figure("idle", {"streams": 10000}, "rss_per_stream"),
    ),
    Bar("CPU of 10,000 idle streams", False, 0.05, None, percent, figure("idle", {"streams": 10000}, "server_cpu")),
    Bar("Opening 10,000 streams", False, 10, None, seconds, figure("idle", {"streams": 10000}, "open_seconds")),
    Bar(
        "Reconnect storm, 10,000 clients: all live again",
        False,
        5,
        None,
        seconds,
        figure("storm", {"streams": 10000}, "storm_live_seconds"),
    ),
    Bar(
        "Single publishes/s, one connection",
        True,
        3000,
        None,
        count,
        figure("publish", {"publishers": 1}, "published_per_second"),
    ),
    Bar(
        "Single publishes/s, 16 connections",
        True,
        3000,
        None,
        count,
        figure("publish", {"publishers": 16}, "published_per_second"),
    ),
    Bar(
        "Events/s published in batches of 1,000, one worker",
        True,
        100_000,
        None,
        count,
        figure("publish", {"batch": 1000}, "published_per_second"),
    ),
    Bar(
        "Single publishes/s, one connection: over Go's, which stores nothing",
        True,
        0.6,
        None,
        times,
        over("publish", {"publishers": 1}, "published_per_second", "go"),
    ),
    Bar(
        "… over the best peer that also has the event on disk first",
        True,
        3,
        None,
        times,
        over_best("publish", {"publishers": 1}, "published_per_second", is_durable),
    ),
    Bar(
        "Saturation, 100 streams, 100 B: delivered events/s over Go net/http",
        True,
        1.2,
        None,
        times,
        over("saturation", {"size": 100, "streams": 100}, "events_per_second", "go"),
    ),
    Bar(
        "One stalled and one trickling reader among 1,000: the others' p99 over that without",
        False,
        1.5,
        None,
        times,
        figure("slow-readers", {"never": 1}, "p99_ratio"),
    ),
    Bar(
        "Saturation, 5,000 streams: `/healthz` on the main port, p99 ms",
        False,
        50_000,
        None,
        milliseconds,
        figure("probes", {"streams": 5000}, "probe_main_us.p99"),
    ),
    Bar(
        "… on the health port, p99 ms",
        False,
        50_000,
        None,
        milliseconds,
        figure("probes", {"streams": 5000}, "probe_health_us.p99"),
    ),
    Bar(
        "… a new stream opens, p99 ms",
        False,
        200_000,
        None,
        milliseconds,
        figure("probes", {"streams": 5000}, "probe_open_us.p99"),
    ),
]

HEAD = ["", "bar", "measured", "rounds", "holds", "moonshot", "holds"]


def write(results: Results) -> str:
    """Write the table."""
    return table(HEAD, [bar.row(results) for bar in BARS])
