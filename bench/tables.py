"""The tables of one scenario: peers down, cases or metrics across, and below them what makes a figure doubtful.

Every figure is a median over as many rounds as the number in brackets, or the column "rounds", says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench import scenarios
from bench.methods import Case
from bench.results import CEILING, Results, pick
from bench.scenarios import Scenario

OURS = "headwater"
NOISE_FROM = 0.25  # of a core: the prober's own share stays below it
HELD_FROM = 0.95  # of a fixed rate: what the window's edges cut off is less
LOST_FROM = 0.0005  # below this share of lost events, their number is shown

Formatter = Callable[[float], str]


def count(value: float) -> str:
    """Format a number: 2.31 M, 54 k, 1,234, 7.5."""
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 1e4:
        return f"{value / 1e3:.0f} k"
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def milliseconds(microseconds: float) -> str:
    """Format microseconds as milliseconds, three digits, without the unit."""
    return f"{microseconds / 1e3:.3g}" if microseconds < 1e6 else f"{microseconds / 1e3:,.0f}"


def kilobytes(value: float) -> str:
    """Format bytes as B, KB or MB."""
    if abs(value) < 1024:
        return f"{value:,.0f} B"
    return f"{value / 1024:.1f} KB" if abs(value) < 2**20 else f"{value / 2**20:.0f} MB"


def percent(share: float) -> str:
    """Format a share of one core."""
    return f"{100 * share:.1f} %"


def seconds(value: float) -> str:
    """Format seconds to a hundredth."""
    return f"{value:.2f} s"


def times(value: float) -> str:
    """Format a ratio."""
    return f"{value:.2f} ×"


COLUMNS: dict[str, list[tuple[str, str, Formatter]]] = {
    "latency": [
        *((f"p{p} ms", f"latency_us.p{p}", milliseconds) for p in ("50", "90", "99", "99.9")),
        ("max ms", "latency_us.max", milliseconds),
        ("deliveries/s", "events_per_second", count),
        ("server CPU", "server_cpu", percent),
    ],
    "idle": [
        ("RSS a stream", "rss_per_stream", kilobytes),
        ("kernel a stream", "kernel_per_stream", kilobytes),
        ("server CPU", "server_cpu", percent),
        ("CPU µs/s a stream", "cpu_us_per_stream", count),
        ("opened/s", "open_rate", count),
        ("all open after", "open_seconds", seconds),
        ("opening p99 ms", "open_latency_us.p99", milliseconds),
        ("CPU µs an opening", "open_cpu_us", count),
        ("server without streams", "idle_rss", kilobytes),
    ],
    "slow-readers": [
        ("p99 ms without", "p99_without_us", milliseconds),
        ("p99 ms with", "p99_with_us", milliseconds),
        ("ratio", "p99_ratio", times),
        ("slow streams closed", "slow.closed", count),
    ],
    "probes": [
        *((f"main port p{p} ms", f"probe_main_us.p{p}", milliseconds) for p in ("50", "99")),
        *((f"health port p{p} ms", f"probe_health_us.p{p}", milliseconds) for p in ("50", "99")),
        *((f"new stream p{p} ms", f"probe_open_us.p{p}", milliseconds) for p in ("50", "99")),
        ("failed", "probes_failed", count),
        ("events/s", "events_per_second", count),
    ],
    "channels": [
        ("events/s", "events_per_second", count),
        ("p50 ms", "latency_us.p50", milliseconds),
        ("p99 ms", "latency_us.p99", milliseconds),
        ("server CPU", "server_cpu", percent),
    ],
    "publish": [
        ("events/s", "published_per_second", count),
        ("requests/s", "publishes_per_second", count),
        ("answer p50 ms", "publish_latency_us.p50", milliseconds),
        ("answer p99 ms", "publish_latency_us.p99", milliseconds),
    ],
    "storm": [
        ("all live after", "storm_live_seconds", seconds),
        ("half live after ms", "storm_live_us.p50", milliseconds),
        ("next event reaches all in", "storm_next_event_seconds", seconds),
        ("connections refused", "open_refused", count),
    ],
}


def line(scenario: Scenario, metrics: dict[str, Any]) -> str:
    """Describe one run, for the terminal."""
    for word in ("failed", "skipped"):
        if word in metrics:
            return f"{word}: {metrics[word]}"
    value = pick(metrics, scenario.headline)
    if value is None:
        return "no figure"
    shown = f"{value / 1e3:,.2f} ms" if "_us." in scenario.headline else f"{value:,.2f} {scenario.unit}"
    remarks = doubts([metrics])
    return shown + (f"  ({'; '.join(remarks)})" if remarks else "")


def faults(runs: list[dict[str, Any]]) -> list[str]:
    """Return what these runs did wrong, which makes their figures worthless."""
    found = []
    lost = sum(run.get("gaps", 0) + run.get("undelivered", 0) for run in runs)
    events = sum(run.get("events", 0) for run in runs)
    if lost:
        share = lost / (lost + events)
        much = f"{share:.1%} of what was acknowledged"
        found.append(f"lost or late: {much if share >= LOST_FROM else f'{lost:,} of {lost + events:,} events'}")
    for name, words in (
        ("duplicates", "duplicates"),
        ("reordered", "events out of order"),
        ("closed_early", "streams cut"),
        ("open_bad_status", "streams refused"),
        ("open_timeouts", "streams never opened"),
        ("publish_failed", "publishes without an answer"),
        ("publish_refused", "publishes refused"),
        ("wrong_size", "events damaged"),
        ("probes_failed", "probes failed"),
    ):
        total = sum(run.get(name, 0) for run in runs)
        if total:
            found.append(f"{total:,} {words}")
    if any("storm" in run and not run["storm"]["complete"] for run in runs):
        found.append("not all streams came back complete")
    return found


def doubts(runs: list[dict[str, Any]]) -> list[str]:
    """Return what a reader must know about these runs."""
    found = faults(runs)
    if any(run.get("generator_saturated") for run in runs) and not any("storm" in run for run in runs):
        found.insert(0, "the generator was busy throughout: a lower bound")
    held = min((run.get("held", 1.0) for run in runs), default=1.0)
    if held < HELD_FROM:
        found.append(f"delivered {held:.0%} of the rate; the events that were due meanwhile would have come even later")
    noise = max((run.get("other_cpu", 0.0) for run in runs), default=0.0)
    if noise >= NOISE_FROM:
        found.append(f"other processes used up to {noise:.0%} of a core")
    if any(run.get("opening_unseen") for run in runs):
        found.append(
            "its answer begins with the first event, so when a stream is open cannot be seen from outside; what "
            "opening costs in CPU is counted until all have long subscribed"
        )
    return found


def table(head: list[str], rows: list[list[str]], *, figures: bool = True) -> str:
    """Write a Markdown table with figures aligned to the right."""
    lines = [head, ["---"] + ["---:" if figures else "---"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def title(results: Results, peer: str) -> str:
    """Return a peer's name for a table, ours in bold."""
    words = results.peers.get(peer, {}).get("title", peer)
    return f"**{words}**" if peer == OURS else words


class _Notes:
    """Footnotes of one table; the same doubt gets the same mark."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}

    def mark(self, remarks: list[str]) -> str:
        marks = [str(self._marks.setdefault(each, len(self._marks) + 1)) for each in remarks]
        return f"<sup>{', '.join(marks)}</sup>" if marks else ""

    def text(self) -> str:
        return "".join(f"<sup>{number}</sup> {remark}  \n" for remark, number in self._marks.items())


def _missing(runs: list[dict[str, Any]]) -> str:
    for run in runs:
        if "skipped" in run:
            return "–"
        if "failed" in run:
            return "failed"
    return ""


def pivot(results: Results, scenario: Scenario) -> str:
    """Write peers down, cases across, the headline in each cell; then the ratios."""
    cases, notes = results.cases(scenario.name), _Notes()
    rows, ratios = [], []
    for joined in _joined(results, scenario):
        cells = [_cell(results, scenario, CEILING, {**case, "joined": joined}) for case in cases]
        rows.append([f"*bare `send`, {joined} event{'s' if joined > 1 else ''} each*", *cells])
    for peer in results.measured_peers(scenario.name):
        cells = []
        for case in cases:
            runs = results.runs(scenario.name, peer, case)
            cells.append(_cell(results, scenario, peer, case, notes.mark(doubts(runs))) or _missing(runs))
        rows.append([title(results, peer), *cells])
        if peer != OURS:
            ratios.append([title(results, peer), *(against(results, scenario, peer, case) for case in cases)])
    head = [scenario.unit, *map(scenarios.label, cases)]
    text = table(head, rows) + "\n" + notes.text()
    if any(any(row[1:]) for row in ratios):
        text += "\nHeadwater over the others (from the medians):\n\n" + table(["", *head[1:]], ratios)
    return text


def _cell(results: Results, scenario: Scenario, peer: str, case: Case, marks: str = "") -> str:
    """Format the median and its number of rounds: `1.65 M (3)`."""
    value = results.median(scenario.name, peer, case, scenario.headline)
    if value is None:
        return ""
    return f"{count(value)}{marks} ({len(results.values(scenario.name, peer, case, scenario.headline))})"


def _joined(results: Results, scenario: Scenario) -> list[int]:
    """Return the joins with which the ceiling was measured."""
    runs = results.scenarios.get(scenario.name, {}).get("runs", [])
    return sorted({run["case"]["joined"] for run in runs if run["peer"] == CEILING})


def against(results: Results, scenario: Scenario, peer: str, case: Case) -> str:
    """Return our median over a peer's, if there are both."""
    ours = results.median(scenario.name, OURS, case, scenario.headline)
    theirs = results.median(scenario.name, peer, case, scenario.headline)
    return times(ours / theirs) if ours and theirs else ""


def listing(results: Results, scenario: Scenario) -> str:
    """Write one table per case: peers down, metrics across."""
    text = ""
    columns = COLUMNS[scenario.name]
    for case in results.cases(scenario.name):
        notes, rows = _Notes(), []
        for peer in results.measured_peers(scenario.name):
            runs = results.runs(scenario.name, peer, case)
            if not runs:
                continue
            cells = []
            for _, metric, shown in columns:
                value = results.median(scenario.name, peer, case, metric)
                cells.append(shown(value) if value is not None else _missing(runs))
            ratio = against(results, scenario, peer, case) if peer != OURS else ""
            rounds = len(results.values(scenario.name, peer, case, scenario.headline))
            stored = [results.peers.get(peer, {}).get("stores", "")] if scenario.shows_stores else []
            rows.append([title(results, peer) + notes.mark(doubts(runs)), *cells, ratio, str(rounds), *stored])
        head = [_case_title(case), *(name for name, _, _ in columns), "Headwater over it", "rounds"]
        head += ["has stored"] if scenario.shows_stores else []
        text += table(head, rows) + "\n" + notes.text() + "\n"
    return text


def _case_title(case: Case) -> str:
    words = [scenarios.label(case)]
    if "never" in case:
        words.append(f"{case['never']} stalled, {case['trickle']} trickling")
    return ", ".join(words)


def costs(results: Results, name: str, case: Case) -> str:
    """Write what one delivered event costs, own code and kernel apart; empty if not measured."""
    rows = []
    for peer in results.measured_peers(name):
        each = [results.median(name, peer, case, metric) for metric in ("events_per_second", "server_cpu")]
        kernel = results.median(name, peer, case, "server_kernel")
        rate, busy = each[0], each[1]
        if not rate or busy is None or kernel is None:
            continue
        reads = results.median(name, peer, case, "reads") or 0
        joined = (results.median(name, peer, case, "events") or 0) / reads if reads else 0
        figures = [1e6 * (busy - kernel) / rate, 1e6 * kernel / rate, joined]
        rows.append([title(results, peer), percent(busy), *(f"{figure:.2f}" for figure in figures)])
    if not rows:
        return ""
    head = [scenarios.label(case), "server CPU", "own code µs/event", "kernel µs/event", "events a read"]
    return table(head, rows)
