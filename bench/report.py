"""Writes docs/benchmarks.md from the result file: the bars, what was measured on what, and a table per scenario.

It replaces only what is between the markers: the bars between the first two, everything else between the others.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from bench import bars, plot, scenarios, sections, tables
from bench.results import Results
from bench.scenarios import Scenario

BARS_BEGIN = "<!-- bars, written by python -m bench: begin -->"
BARS_END = "<!-- bars, written by python -m bench: end -->"
BEGIN = "<!-- written by python -m bench: begin -->"
END = "<!-- written by python -m bench: end -->"
EMPTY = f"# Benchmarks\n\n{BARS_BEGIN}\n{BARS_END}\n\n{BEGIN}\n{END}\n"
WIDTH = 120

ON_BARS = """\
A bar holds if the median reaches it and no run lost, repeated or refused anything. "Rounds" has the least and the
greatest value of a round, and the number of rounds; a ratio compares two runs of the same round.
"""


def _preamble(results: Results) -> str:
    facts = results.machine
    text = (
        "## What was measured on what\n\n"
        f"{facts.get('processor')}; {facts.get('cores')} cores, {facts.get('memory')}; "
        f"{facts.get('system')}, Linux {facts.get('kernel')}. Every figure is the median over the rounds; their number "
        "is in brackets behind it, or in a column of its own.\n\n"
    )
    rows = [[known["title"], known["version"], known.get("stores", "")] for known in results.peers.values()]
    text += tables.table(["peer", "version", "has stored before it acknowledges"], rows, figures=False)
    for title, reason in results.skipped.items():
        text += f"\nNot run: {title} ({reason}).  "
    if results.omitted:
        text += f"\nNot measured, for lack of time: {'; '.join(results.omitted)}.  "
    return text + "\n\n"


def _when(found: dict[str, Any]) -> str:
    """Say when: `2026-01-31 09:00 UTC, python -m bench, 1–3 rounds, 2–5 s each`."""
    rounds: dict[str, int] = {}
    for run in found["runs"]:
        cell = f"{run['peer']} {run['case']}"
        rounds[cell] = rounds.get(cell, 0) + 1
    lengths = [run["seconds"] for run in found["runs"]]
    counted = _span([float(number) for number in rounds.values()])
    words = "round" if counted == "1" else "rounds"
    return f"{found['date']}, `{found['command']}`, {counted} {words}, {_span(lengths)} s each"


def _span(values: list[float]) -> str:
    least, most = min(values), max(values)
    return f"{least:g}" if f"{least:.2g}" == f"{most:.2g}" else f"{least:.2g}–{most:.2g}"


def _section(results: Results, scenario: Scenario) -> str:
    found = results.scenarios[scenario.name]
    text = (
        f"## {scenario.title}\n\n"
        + textwrap.fill(f"{scenario.explanation} ({_when(found)}.)", WIDTH, break_on_hyphens=False)
        + "\n\n"
    )
    for picture in plot.draw(results, scenario):
        text += f"![{scenario.title}]({picture.relative_to(results.folder)})\n\n"
    text += (tables.pivot if scenario.table == "pivot" else tables.listing)(results, scenario)
    core = {"saturation": bars.AT_SATURATION, "latency": bars.AT_60000}.get(scenario.name)
    for case in results.cases(scenario.name) if core else []:
        if core and core.items() <= case.items() and (costs := tables.costs(results, scenario.name, case)):
            text += "\nWhat one delivered event costs the server:\n\n" + costs
    return text + "\n"


def write(results: Results) -> Path:
    """Write the document and its plots; return the document's path."""
    text = _preamble(results)
    for name, scenario in scenarios.KNOWN.items():
        if results.scenarios.get(name, {}).get("runs"):
            text += _section(results, scenario)
    path = results.folder / sections.DOCUMENT.name
    document = path.read_text() if path.exists() else EMPTY
    document = sections.put(document, BARS_BEGIN, BARS_END, f"{bars.write(results)}\n{ON_BARS}")
    path.write_text(sections.put(document, BEGIN, END, text))
    return path
