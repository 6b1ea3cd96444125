"""The bars are computed from the results: the right figure, the right comparison, and no bar holds with faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import bars, methods, peers, scenarios
from bench.results import Results

# The figures of the bars, in the order of the table: all bars hold, and no moonshot.
GOOD: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("saturation", "headwater", {"size": 100, "streams": 1000}, {"events_per_second": 700.0}),
    ("saturation", "go", {"size": 100, "streams": 1000}, {"events_per_second": 100.0}),
    ("saturation", "nchan", {"size": 100, "streams": 1000}, {"events_per_second": 150.0}),
    ("saturation", "better-sse", {"size": 100, "streams": 1000}, {"events_per_second": 90.0}),
    ("saturation", "headwater", {"size": 100, "streams": 100}, {"events_per_second": 125.0}),
    ("saturation", "go", {"size": 100, "streams": 100}, {"events_per_second": 100.0}),
    (
        "latency",
        "headwater",
        {"size": 100, "streams": 2000, "rate": 30},
        {"latency_us": {"p99": 50.0}, "writes_per_cpu_second": 340.0},
    ),
    ("latency", "go", {"size": 100, "streams": 2000, "rate": 30}, {"latency_us": {"p99": 100.0}}),
    (
        "idle",
        "headwater",
        {"streams": 10000},
        {"rss_per_stream": 300.0, "server_cpu": 0.02, "open_seconds": 4.0},
    ),
    ("storm", "headwater", {"size": 100, "streams": 10000, "missed": 100}, {"storm_live_seconds": 3.0}),
    ("publish", "headwater", {"publishers": 1}, {"published_per_second": 3500.0}),
    ("publish", "go", {"publishers": 1}, {"published_per_second": 5000.0}),
    ("publish", "mercure", {"publishers": 1}, {"published_per_second": 1100.0}),
    ("publish", "durable-streams", {"publishers": 1}, {"published_per_second": 900.0}),
    ("publish", "centrifugo", {"publishers": 1}, {"published_per_second": 20000.0}),
    ("publish", "headwater", {"publishers": 16}, {"published_per_second": 4500.0}),
    ("publish", "headwater", {"publishers": 4, "batch": 1000}, {"published_per_second": 2e5}),
    (
        "slow-readers",
        "headwater",
        {"size": 1024, "streams": 1000, "rate": 30, "never": 1, "trickle": 1},
        {"p99_ratio": 1.1},
    ),
    (
        "probes",
        "headwater",
        {"size": 100, "streams": 5000},
        {"probe_main_us": {"p99": 2e4}, "probe_health_us": {"p99": 2e4}, "probe_open_us": {"p99": 1e5}},
    ),
]


def results_of(changes: dict[tuple[str, str], dict[str, Any]] | None = None, number: int = 0) -> Results:
    """Return results in which every bar holds, with changes by (scenario, peer)."""
    results = Results(Path())
    for scenario in scenarios.KNOWN.values():
        results.begin(scenario)
    results.add_ceiling(
        scenarios.KNOWN["latency"],
        {"size": 100, "streams": 2000, "rate": 30},
        0,
        {"joined": 1, "seconds": 1.0, "sends_per_cpu_second": 400.0},
    )
    for scenario, peer, case, metrics in GOOD:
        changed = {**metrics, **(changes or {}).get((scenario, peer), {})}
        results.add(scenarios.KNOWN[scenario], peers.KNOWN[peer], case, number, changed)
    return results


def held(results: Results) -> list[str]:
    return [bar.row(results)[4] for bar in bars.BARS]


def test_results_beyond_all_bars_pass_all_bars() -> None:
    bounded = [bar for bar in bars.BARS if bar.wanted is not None]
    assert [bar.row(results_of())[4] for bar in bounded] == ["yes"] * len(bounded)
    assert [bar.row(results_of())[6] for bar in bars.BARS if bar.moonshot is not None] == ["**no**"] * 3


BROKEN = [
    pytest.param(("saturation", "headwater"), {"events_per_second": 599.0}, [0, 1], id="less than 6 times Go"),
    pytest.param(("saturation", "better-sse"), {"events_per_second": 176.0}, [1], id="the best other peer is better"),
    pytest.param(("saturation", "headwater"), {"gaps": 1, "events": 10**6}, [0, 1, 13], id="one event in a million lost"),
    pytest.param(("latency", "go"), {"latency_us": {"p99": 70.0}}, [2], id="p99 near Go's"),
    pytest.param(("idle", "headwater"), {"rss_per_stream": 601.0}, [4], id="memory"),
    pytest.param(("idle", "headwater"), {"server_cpu": 0.051}, [5], id="idle CPU"),
    pytest.param(("idle", "headwater"), {"open_seconds": 10.1}, [6], id="slow opening"),
    pytest.param(("storm", "headwater"), {"storm_live_seconds": 5.1}, [7], id="slow storm"),
    pytest.param(("storm", "headwater"), {"storm": {"complete": False}}, [7], id="a storm with something missing"),
    pytest.param(("publish", "go"), {"published_per_second": 5834.0}, [11], id="a publish at less than 0.6 times Go's rate"),
    pytest.param(("publish", "mercure"), {"published_per_second": 1167.0}, [12], id="less than 3 times Mercure with Bolt"),
    pytest.param(("publish", "durable-streams"), {"published_per_second": 1167.0}, [12], id="another durable peer is best"),
    pytest.param(("saturation", "go"), {"events_per_second": 105.0}, [13], id="100 streams near Go"),
    pytest.param(("slow-readers", "headwater"), {"p99_ratio": 1.6}, [14], id="slow readers are felt"),
    pytest.param(("probes", "headwater"), {"probe_main_us": {"p99": 5.1e4}}, [15], id="a slow probe"),
    pytest.param(("probes", "headwater"), {"probe_health_us": {"p99": 5.1e4}}, [16], id="a slow health port"),
    pytest.param(("probes", "headwater"), {"probe_open_us": {"p99": 2.1e5}}, [17], id="a slow new stream"),
    pytest.param(("probes", "headwater"), {"probes_failed": 1}, [15, 16, 17], id="a probe that failed"),
]


@pytest.mark.parametrize(("where", "change", "fallen"), BROKEN)
def test_a_figure_that_misses_its_bar_fails_only_that_bar(
    where: tuple[str, str], change: dict[str, Any], fallen: list[int]
) -> None:
    assert [number for number, holds in enumerate(held(results_of({where: change}))) if holds == "**no**"] == fallen


def test_a_figure_beyond_a_moonshot_reaches_it() -> None:
    results = results_of(
        {
            ("saturation", "headwater"): {"events_per_second": 1000.0},
            ("latency", "headwater"): {"latency_us": {"p99": 40.0}, "writes_per_cpu_second": 361.0},
        }
    )
    assert [bar.row(results)[6] for bar in bars.BARS if bar.moonshot is not None] == ["yes"] * 3


def test_the_spread_compares_runs_of_the_same_round() -> None:
    results = results_of({("saturation", "headwater"): {"events_per_second": 900.0}})
    for scenario, peer, case, metrics in GOOD[:2]:
        half = {"events_per_second": metrics["events_per_second"] / 2}
        results.add(scenarios.KNOWN[scenario], peers.KNOWN[peer], case, 1, half)
    assert bars.BARS[0].row(results)[3] == "7.00 × – 9.00 × (2)"


def test_a_bar_that_was_not_measured_does_not_hold() -> None:
    assert {bar.row(Results(Path()))[2] for bar in bars.BARS} == {"not measured"}
    assert set(held(Results(Path()))) == {""}


@pytest.mark.parametrize(
    ("reads", "writes"),
    [
        pytest.param(1000, 200_000, id="one event a read"),
        pytest.param(250, 50_000, id="four events joined count once"),
        pytest.param(2000, 200_000, id="an event in two reads is one write"),
    ],
)
def test_the_comparison_with_the_ceiling_counts_writes_not_joined_events(reads: int, writes: int) -> None:
    result = {"events": 1000, "reads": reads, "events_per_second": 50_000.0, "server_cpu": 0.25}
    assert methods.writes_per_cpu_second(result) == writes


def test_no_bar_holds_with_a_failed_run() -> None:
    results = Results(Path())
    storm = scenarios.KNOWN["storm"]
    results.begin(storm)
    results.add(storm, peers.KNOWN["headwater"], storm.cases[0], 0, {"failed": "it ended"})
    assert bars.BARS[7].row(results)[2:5] == ["failed", "", "**no**"]


def test_a_peer_that_stores_in_memory_only_is_not_durable() -> None:
    assert bars.BARS[12].row(results_of())[2] == "3.18 × (mercure)"
    assert bars.BARS[12].row(results_of({("publish", "durable-streams"): {"published_per_second": 1160.0}}))[2] == "3.02 × (durable-streams)"


def test_the_best_other_peer_is_named() -> None:
    assert bars.BARS[1].row(results_of())[2] == "4.67 × (nchan)"
