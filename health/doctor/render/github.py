"""Workflow commands of GitHub Actions: each finding becomes an annotation of its line."""

from __future__ import annotations

from ..finding import Severity
from .report import Report

_COMMANDS = {Severity.BREAKS: "error", Severity.RISKS: "warning", Severity.NOTE: "notice"}


def github(report: Report) -> str:
    lines = []
    for entry in report.entries:
        where = f"file={_property(entry.file)},line={max(1, entry.line)}," if entry.file else ""
        title = _property(f"{entry.id} {entry.name}")
        message = _data(f"{entry.object} {entry.field}: {entry.reason}\n{entry.repair}".strip())
        lines.append(f"::{_COMMANDS[entry.severity]} {where}title={title}::{message}")
    lines += [f"::debug::{_data(note)}" for note in report.notes]
    return "\n".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
