"""The grid's own arithmetic: which points, the search for saturation, when the bar holds, and the section it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import grid, gridpoints, sections
from bench.gridpoints import OURS, Cell, Pair, Run

PEERS = ["go", "nchan"]


def run(p99: float, *, rate: float = 30.0, arrived: float = 1.0, faults: tuple[str, ...] = ()) -> Run:
    return Run(rate, arrived, p99 / 2, p99, p99 * 2, 0.5, faults)


def pair(theirs: Run, ours: Run, *, peer: str = "go", streams: int = 100, share: float = 0.5) -> Pair:
    return Pair(peer, streams, share, theirs, ours)


# ── the plan ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_plan_has_every_share_of_every_server_and_number_of_streams_once_a_round() -> None:
    for rounds in (1, 3):
        cells = gridpoints.plan(PEERS, grid.STREAMS, rounds)
        found = [(cell.peer, cell.streams, share) for cell in cells for share in cell.shares]
        assert len(found) == len(set(found)) * rounds
        assert set(found) == {
            (peer, streams, share)
            for peer in (*PEERS, OURS)
            for streams in grid.STREAMS
            for share in (0.1, 0.25, 0.5, 0.75, 0.9)
        }


def test_what_decides_the_bar_is_measured_first() -> None:
    cells = gridpoints.plan([*gridpoints.LATER, *PEERS], grid.STREAMS, 1)
    first = cells[: 4 * len(PEERS)]
    assert {(cell.peer, cell.streams) for cell in first} == {(p, n) for p in PEERS for n in (100, 1000, 2000, 10000)}
    assert all(cell.shares == gridpoints.FIRST_SHARES for cell in first)


def test_numbers_of_streams_of_ones_own_are_planned() -> None:
    assert {cell.streams for cell in gridpoints.plan(PEERS, [5, 300], 1)} == {5, 300}


def test_a_cell_is_left_out_if_the_time_left_does_not_suffice_at_the_pace_so_far() -> None:
    site = grid.Grid([], grid.SECONDS)
    cell = Cell("go", 1000, gridpoints.FIRST_SHARES)
    needed = site._estimate(cell)
    assert 20 < needed < 120
    assert site.fits(cell, needed + 1) and not site.fits(cell, needed / 2)
    site._estimated, site._took = 10.0, 20.0  # the machine is half as fast
    assert not site.fits(cell, needed + 1) and site.fits(cell, 2 * needed + 1)
    site.saturation["go", 1000] = 80.0
    assert site._estimate(cell) < needed  # nothing to search


# ── saturation ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("guess", [10.0, 60.0, 80.0, 81.0, 100.0, 400.0])
def test_the_search_finds_the_greatest_rate_that_is_held(guess: float) -> None:
    tried: list[float] = []

    def held(rate: float) -> bool:
        tried.append(rate)
        return rate <= 80

    found = gridpoints.saturation(held, guess)
    assert 80 / gridpoints.CLOSE <= found <= 80
    assert len(tried) <= gridpoints.MOST_TRIES


def test_the_search_gives_up_on_a_server_that_holds_nothing() -> None:
    assert gridpoints.saturation(lambda rate: False, 100.0) == 0.0


def test_a_load_is_held_if_nearly_all_of_it_arrives_intact() -> None:
    assert run(5).held() and run(5, arrived=0.98).held()
    assert not run(5, arrived=0.96).held()
    assert not run(5, faults=("duplicates",)).held()
    assert run(2 * gridpoints.HELD_P50).held() and not run(2 * gridpoints.HELD_P50 + 1).held()  # p50 is half of it


# ── the bar ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        pytest.param(pair(run(10), run(9)), "yes", id="below the peer's"),
        pytest.param(pair(run(10), run(10)), "yes", id="at the peer's"),
        pytest.param(pair(run(10), run(11)), "**no**", id="above the peer's"),
        pytest.param(pair(run(10, arrived=0.9), run(11)), "the peer does not hold it", id="the peer does not hold it"),
        pytest.param(pair(run(10), run(1, arrived=0.5)), "**no**: lost or late", id="we do not hold it"),
        pytest.param(pair(run(10), run(1, faults=("3 duplicates",))), "**no**: lost or late", id="ours are damaged"),
        pytest.param(pair(run(10), run(20), streams=10), "", id="no bar with few streams"),
    ],
)
def test_the_bar(measured: Pair, verdict: str) -> None:
    (point,) = gridpoints.points([measured])
    assert point.verdict() == verdict


def test_several_rounds_are_judged_by_the_median_of_their_ratios() -> None:
    (point,) = gridpoints.points([pair(run(10), run(8)), pair(run(10), run(30)), pair(run(40), run(36))])
    assert point.rounds == 3
    assert (point.ratio, point.least, point.most) == (0.9, 0.8, 3.0)
    assert (point.theirs.p99, point.ours.p99) == (10, 30)
    assert point.verdict() == "yes"


def test_points_are_counted_only_where_there_is_a_bar() -> None:
    pairs = [
        pair(run(10), run(9)),
        pair(run(10), run(12), share=0.9),
        pair(run(10), run(12), streams=1),
        pair(run(10, arrived=0.5), run(9), peer="nchan"),
    ]
    found = gridpoints.points(pairs)
    assert [(point.streams, point.peer, point.share) for point in found] == [
        (1, "go", 0.5),
        (100, "go", 0.5),
        (100, "go", 0.9),
        (100, "nchan", 0.5),
    ]
    assert gridpoints.judged(found) == (1, 2)


# ── the section ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_section_says_where_the_bar_holds_and_what_was_left_out(tmp_path: Path) -> None:
    site = grid.Grid([], grid.SECONDS)
    site.pairs = [pair(run(10), run(5)), pair(run(10, rate=54), run(15, rate=54), share=0.9)]
    site.own = {(100, 0.5): [run(3, rate=900)]}
    few = [Cell("go", streams, (0.1, 0.5)) for streams in (1, 10)]
    left_out = [*few, Cell("nchan", 100, (0.1, 0.5)), Cell("nchan", 10_000, (0.75,))]
    text = site.report("python -m bench.grid", left_out, tmp_path / "plots")
    assert "at 1 of 2 points | 1 | **no** |" in text
    assert "| Go net/http | 50% | 30 | 5 | 10 | 20 | 50% | 2.5 | 5 | 10 | 50% | 0.50 × | yes |" in text
    assert "| 1.50 × | **no** |" in text
    assert "| 100 | 50% | 900 | 1.5 | 3 | 6 | 50% |" in text
    assert (
        "Not measured, for lack of time: at 10%, 50%: 1 and 10 streams (go), 100 streams (nchan); "
        "at 75%: 10,000 streams (nchan)." in text
    )
    assert "![p99 by load, 100 streams](plots/grid-100.svg)" in text
    picture = (tmp_path / "plots" / "grid-100.svg").read_text()
    assert picture.count("<polyline") == 2 and "10,000" in picture
    document = tmp_path / "benchmarks.md"
    document.write_text("# Benchmarks\n")
    sections.write("grid", text, document)
    sections.write("grid", text, document)
    assert document.read_text().count("## Latency at every load") == 1


def test_a_run_that_lost_events_is_not_held() -> None:
    latency = {"p50": 900.0, "p99": 2100.0, "max": 3000.0}
    found = {"latency_us": latency, "events_per_second": 2850.0, "server_cpu": 0.25, "window_seconds": 2.0}
    assert grid._run_of(found, 100, 30.0) == Run(30.0, pytest.approx(0.95 + 1 / 60), 0.9, 2.1, 3.0, 0.25)
    assert grid._run_of({**found, "events_per_second": 2900.0}, 100, 30.0).held()
    assert not grid._run_of({**found, "duplicates": 2, "events_per_second": 2900.0}, 100, 30.0).held()
