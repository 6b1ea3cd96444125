"""For people: grouped by object, the gravest first; colour on a terminal."""

from __future__ import annotations

import textwrap

from ..finding import Severity
from .report import Entry, Report

_COLOURS = {Severity.BREAKS: "\x1b[1;31m", Severity.RISKS: "\x1b[1;33m", Severity.NOTE: "\x1b[36m"}
_DIM, _OFF = "\x1b[2m", "\x1b[0m"


def text(report: Report) -> str:
    lines: list[str] = []
    for entry in report.entries:
        lines += _entry(entry, report.colour)
    if not report.entries:
        lines.append("nothing found")
    else:
        counts = [
            f"{number} {severity.word}"
            for severity in (Severity.BREAKS, Severity.RISKS, Severity.NOTE)
            if (number := sum(entry.severity == severity for entry in report.entries))
        ]
        lines.append(", ".join(counts))
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def _entry(entry: Entry, colour: bool) -> list[str]:
    severity = f"{_COLOURS[entry.severity]}{entry.severity.word}{_OFF}" if colour else entry.severity.word
    place = f"{entry.object} {entry.field}".strip()
    lines = [f"{severity}  {entry.id} {entry.name}"]
    if place:
        lines.append(f"  {place}")
    if entry.file:
        where = f"  {entry.file}:{entry.line}" + (f" (document {entry.document})" if entry.document > 1 else "")
        lines.append(f"{_DIM}{where}{_OFF}" if colour else where)
    lines += _wrapped(entry.reason, "  ")
    for row in entry.repair.splitlines():
        indent = "    " + " " * (len(row) - len(row.lstrip()))
        lines += _wrapped(row.strip(), indent) if len(row) > 110 else [f"    {row}"]
    lines += [f"  {entry.link}", ""]
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, 100, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
