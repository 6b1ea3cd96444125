"""The plan for a budget: what runs first, what is left out, and that it ends in time."""

from __future__ import annotations

import pytest

from bench import bars, peers, plan, scenarios
from bench.plan import Clock, Step

READY = list(peers.KNOWN.values())


def executed(minutes: float, pace: float) -> tuple[list[Step], float]:
    """Return the steps that a run would do at `pace` times the estimates, and the seconds it took."""
    clock, elapsed, done = Clock(minutes * 60), 0.0, []
    for step in plan.within(minutes * 60, READY):
        if clock.fits(step, elapsed):
            clock.took(step, step.estimate() * pace)
            elapsed += step.estimate() * pace
            done.append(step)
    return done, elapsed


def rounds(steps: list[Step], scenario: str, peer: str, **case: int) -> int:
    return sum(
        step.scenario.name == scenario
        and case.items() <= step.case.items()
        and peer in {each.name for each in step.peers}
        for step in steps
    )


@pytest.mark.parametrize("minutes", [30, 35, 120])
def test_a_budget_covers_every_table_and_three_rounds_of_the_core(minutes: float) -> None:
    steps, elapsed = executed(minutes, pace=1.0)
    assert elapsed <= minutes * 60
    for name, scenario in scenarios.KNOWN.items():
        for case in scenario.cases:
            assert rounds(steps, name, "headwater", **case) >= 1, (name, case)
    for peer in plan.CORE:
        assert rounds(steps, "saturation", peer, **bars.AT_SATURATION) >= 3
        assert rounds(steps, "latency", peer, **bars.AT_60000) >= 3
        assert rounds(steps, "idle", peer, streams=10000) >= 1


@pytest.mark.parametrize("peer", plan.MATTER)
def test_every_peer_that_matters_has_a_cell_in_every_main_table(peer: str) -> None:
    steps, _ = executed(21, pace=1.0)
    for scenario, case in (
        ("saturation", {"size": 100, "streams": 1000}),
        ("saturation", {"size": 100, "streams": 100}),
        ("latency", {"streams": 2000}),
        ("idle", {"streams": 1000}),
        ("publish", {"publishers": 1}),
        ("publish", {"publishers": 16}),
    ):
        assert rounds(steps, scenario, peer, **case) >= 1, (scenario, case)
    if peers.KNOWN[peer].is_durable:
        assert rounds(steps, "publish", peer, publishers=1) >= 3


def test_what_nobody_would_choose_runs_once_and_last() -> None:
    steps = plan.within(21 * 60, READY)
    first = [step for step in steps if step.number == 0]
    slow = [step for step in first if {peer.name for peer in step.peers} & set(plan.SLOW) and step.scenario.name != "idle"]
    assert slow == first[-len(slow) - 1 : -1] or slow == first[-len(slow) :]
    assert all(rounds(steps, "saturation", name) == 1 for name in plan.SLOW)


def test_a_quarter_of_an_hour_suffices_for_every_table_and_three_rounds_of_the_core() -> None:
    steps, elapsed = executed(15, pace=1.0)
    assert elapsed <= 15 * 60
    assert {step.scenario.name for step in steps} == set(scenarios.KNOWN)
    assert rounds(steps, "saturation", "go", **bars.AT_SATURATION) >= 3


def test_no_round_of_a_cell_is_planned_twice() -> None:
    cells = [
        (step.scenario.name, str(step.case), peer.name, step.number)
        for step in plan.within(30 * 60, READY)
        for peer in step.peers
        if not (step.scenario.only and peer.name == "headwater")
    ]
    assert len(cells) == len(set(cells))


@pytest.mark.parametrize("pace", [1.5, 3.0])
def test_a_slow_machine_ends_in_time_and_runs_what_the_bars_need(pace: float) -> None:
    steps, elapsed = executed(30, pace)
    assert elapsed <= 30 * 60
    for bar_of in ("saturation", "latency", "publish", "storm", "idle", "slow-readers", "probes"):
        assert any(step.scenario.name == bar_of for step in steps), bar_of


def test_a_larger_budget_means_more_rounds_and_never_shorter_runs() -> None:
    short, long = executed(15, 1.0)[0], executed(60, 1.0)[0]
    assert rounds(long, "saturation", "go", **bars.AT_SATURATION) > rounds(
        short, "saturation", "go", **bars.AT_SATURATION
    )
    assert long[0].scenario.seconds > short[0].scenario.seconds


def test_the_servers_take_turns_in_alternating_order() -> None:
    chosen = (peers.KNOWN["go"], peers.KNOWN["nchan"])
    scenario = scenarios.KNOWN["saturation"]
    orders = [[peer.name for peer in Step(scenario, {}, chosen, number).in_turn()] for number in range(3)]
    assert orders == [["go", "nchan"], ["nchan", "go"], ["go", "nchan"]]


def test_the_variant_that_syncs_is_measured_where_it_differs() -> None:
    for steps in (plan.within(120 * 60, READY), plan.everything(scenarios.KNOWN.values(), READY)):
        found = {step.scenario.name for step in steps if peers.KNOWN["headwater-sync"] in step.peers}
        assert found == {"publish"}


def test_without_a_budget_everything_is_run() -> None:
    steps = plan.everything(scenarios.KNOWN.values(), READY)
    assert all(Clock(None).fits(step, 1e9) for step in steps)
    saturation = [step for step in steps if step.scenario.name == "saturation"]
    assert len(saturation) == 9 * 3
