"""Writes the tables of docs/benchmarks.md from the result file.

Only what stands between the two markers is written; prose around them stays.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import plot, scenarios
from bench.results import CEILING, Results, pick
from bench.scenarios import Case, Scenario

DOCUMENT = "benchmarks.md"
BEGIN = "<!-- written by python -m bench: begin -->"
END = "<!-- written by python -m bench: end -->"
PREFACE = "# Benchmarks\n\n"
OURS = "headwater"

Formatter = Callable[[float], str]


def _count(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:,.0f}"


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1e3:.3g}" if microseconds < 1e6 else f"{microseconds / 1e3:,.0f}"


def _kilobytes(value: float) -> str:
    return f"{value:,.0f} B" if abs(value) < 1024 else f"{value / 1024:.1f} KB"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _ratio(value: float) -> str:
    return f"{value:.2f} ×"


COLUMNS: dict[str, list[tuple[str, str, Formatter]]] = {
    "latency": [
        *((f"p{p} ms", f"latency_us.p{p}", _milliseconds) for p in ("50", "90", "99", "99.9")),
        ("max ms", "latency_us.max", _milliseconds),
        ("deliveries/s", "events_per_second", _count),
        ("server CPU", "server_cpu", _percent),
    ],
    "idle": [
        ("RSS a stream", "rss_per_stream", _kilobytes),
        ("kernel a stream", "kernel_per_stream", _kilobytes),
        ("server CPU", "server_cpu", _percent),
        ("opened/s", "open_rate", _count),
        ("opening p99 ms", "open_latency_us.p99", _milliseconds),
        ("idle server", "idle_rss", _kilobytes),
    ],
    "slow": [
        ("p99 ms without", "p99_without_us", _milliseconds),
        ("p99 ms with", "p99_with_us", _milliseconds),
        ("ratio", "p99_ratio", _ratio),
        ("slow streams closed", "slow.closed", _count),
    ],
    "channels": [
        ("events/s", "events_per_second", _count),
        ("p50 ms", "latency_us.p50", _milliseconds),
        ("p99 ms", "latency_us.p99", _milliseconds),
        ("server CPU", "server_cpu", _percent),
    ],
    "publish": [
        ("events/s", "published_per_second", _count),
        ("requests/s", "publishes_per_second", _count),
        ("answer p50 ms", "publish_latency_us.p50", _milliseconds),
        ("answer p99 ms", "publish_latency_us.p99", _milliseconds),
    ],
    "storm": [
        ("all live after", "storm_live_seconds", _seconds),
        ("half live after ms", "storm_live_us.p50", _milliseconds),
        ("next event reaches all in", "storm_next_event_seconds", _seconds),
        ("connections refused", "open_refused", _count),
    ],
}


def line(scenario: Scenario, metrics: dict[str, Any]) -> str:
    """One run in a few words, for the terminal."""
    for word in ("failed", "skipped"):
        if word in metrics:
            return f"{word}: {metrics[word]}"
    value = pick(metrics, scenario.headline)
    if value is None:
        return "no figure"
    shown = f"{value / 1e3:,.2f} ms" if scenario.headline.startswith("latency") else f"{value:,.2f} {scenario.unit}"
    doubts = _doubts([metrics])
    noise = metrics.get("other_cpu", 0.0)
    if noise > 0.1:
        doubts.append(f"others used {noise:.0%} of a core")
    return shown + (f"  ({'; '.join(doubts)})" if doubts else "")


def _doubts(runs: list[dict[str, Any]]) -> list[str]:
    """What a reader must know about these runs."""
    doubts = []
    if any(run.get("generator_saturated") for run in runs) and not any("storm" in run for run in runs):
        doubts.append("the generator was busy throughout: a lower bound")
    lost = sum(run.get("gaps", 0) + run.get("undelivered", 0) for run in runs)
    events = sum(run.get("events", 0) for run in runs)
    if lost:
        doubts.append(f"lost or late: {lost / (lost + events):.1%} of what was acknowledged")
    for name, words in (
        ("duplicates", "duplicates"),
        ("closed_early", "streams cut"),
        ("open_bad_status", "streams refused"),
        ("open_timeouts", "streams never opened"),
        ("publish_failed", "publishes without an answer"),
        ("publish_refused", "publishes refused"),
        ("wrong_size", "events damaged"),
    ):
        total = sum(run.get(name, 0) for run in runs)
        if total:
            doubts.append(f"{total:,} {words}")
    if any("storm" in run and not run["storm"]["complete"] for run in runs):
        doubts.append("not all streams came back complete")
    return doubts


def _table(head: list[str], rows: list[list[str]], *, figures: bool = True) -> str:
    lines = [head, ["---"] + ["---:" if figures else "---"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


class _Notes:
    """Footnotes of one table: the same doubt gets the same mark."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}

    def mark(self, doubts: list[str]) -> str:
        return "".join(f"<sup>{self._marks.setdefault(doubt, len(self._marks) + 1)}</sup>" for doubt in doubts)

    def text(self) -> str:
        return "\n".join(f"<sup>{number}</sup> {doubt}  " for doubt, number in self._marks.items())


def _missing(runs: list[dict[str, Any]]) -> str:
    for run in runs:
        if "skipped" in run:
            return "–"
        if "failed" in run:
            return "failed"
    return ""


def _pivot(results: Results, scenario: Scenario) -> str:
    """Peers down, cases across, the headline in each cell; then the ratios."""
    cases, notes = results.cases(scenario.name), _Notes()
    rows, ratios = [], []
    for joined in _joined(results, scenario):
        limits = [
            results.median(scenario.name, CEILING, {**case, "joined": joined}, scenario.headline) for case in cases
        ]
        title = f"*bare `send`, {joined} event{'s' if joined > 1 else ''} each*"
        rows.append([title, *("" if limit is None else _count(limit) for limit in limits)])
    for peer in results.measured_peers(scenario.name):
        cells = []
        for case in cases:
            value = results.median(scenario.name, peer, case, scenario.headline)
            runs = results.runs(scenario.name, peer, case)
            cells.append(_count(value) + notes.mark(_doubts(runs)) if value is not None else _missing(runs))
        rows.append([_title(results, peer), *cells])
        if peer != OURS:
            ratios.append([_title(results, peer), *(_against(results, scenario, peer, case) for case in cases)])
    head = [scenario.unit, *map(scenarios.label, cases)]
    text = _table(head, rows) + "\n" + notes.text() + "\n"
    if any(any(row[1:]) for row in ratios):
        text += "\nHeadwater over the others (from the medians):\n\n" + _table(["", *head[1:]], ratios)
    return text


def _joined(results: Results, scenario: Scenario) -> list[int]:
    """The joins with which the ceiling was measured."""
    runs = results.scenarios.get(scenario.name, {}).get("runs", [])
    return sorted({run["case"]["joined"] for run in runs if run["peer"] == CEILING})


def _against(results: Results, scenario: Scenario, peer: str, case: Case) -> str:
    ours = results.median(scenario.name, OURS, case, scenario.headline)
    theirs = results.median(scenario.name, peer, case, scenario.headline)
    return _ratio(ours / theirs) if ours and theirs else ""


def _listing(results: Results, scenario: Scenario) -> str:
    """One table a case: peers down, metrics across."""
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
            ratio = _against(results, scenario, peer, case) if peer != OURS else ""
            rows.append([_title(results, peer) + notes.mark(_doubts(runs)), *cells, ratio])
        head = [_case_title(case), *(title for title, _, _ in columns), "Headwater over it"]
        text += _table(head, rows) + "\n" + notes.text() + "\n\n"
    return text


def _case_title(case: Case) -> str:
    words = [scenarios.label(case)]
    if "never" in case:
        words.append(f"{case['never']} stalled, {case['trickle']} trickling")
    return ", ".join(words)


def _title(results: Results, peer: str) -> str:
    title = results.peers.get(peer, {}).get("title", peer)
    return f"**{title}**" if peer == OURS else title


def _preamble(results: Results) -> str:
    facts = results.machine
    text = (
        f"Measured on: {facts.get('processor')}; {facts.get('cores')} cores, {facts.get('memory')}; "
        f"{facts.get('system')}, Linux {facts.get('kernel')}. The serving side has one core, the load generator the "
        "other; the peers take turns within each round, and every figure is the median over the rounds.\n\n"
    )
    rows = [[known["title"], known["version"]] for known in results.peers.values()]
    text += _table(["peer", "version"], rows, figures=False)
    for title, reason in results.skipped.items():
        text += f"\nNot run: {title} ({reason}).  "
    return text + "\n\n"


def write(results: Results) -> Path:
    """Writes the document and its plots; returns the document's path."""
    text = _preamble(results)
    for name, scenario in scenarios.KNOWN.items():
        found = results.scenarios.get(name)
        if not found or not found["runs"]:
            continue
        when = f"{found['date']}, {found['rounds']} rounds of {found['seconds']:g} s"
        text += f"## {scenario.title}\n\n{scenario.explanation} ({when}.)\n\n"
        for picture in plot.draw(results, scenario):
            text += f"![{scenario.title}]({picture.relative_to(results.folder)})\n\n"
        text += _pivot(results, scenario) if name == "saturation" else _listing(results, scenario)
        text += "\n"
    path = results.folder / DOCUMENT
    before, after = PREFACE, ""
    if path.exists() and BEGIN in (old := path.read_text()):
        before, _, rest = old.partition(BEGIN)
        after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text.rstrip()}\n\n{END}{after or chr(10)}")
    return path
