"""The tables of rules as Markdown, for docs/doctor.md."""

from __future__ import annotations

from collections.abc import Iterable

from . import rules as _rules  # noqa: F401  (fills the table)
from .finding import RULES, Rule
from .live.rules import live_rules
from .symptoms import SYMPTOMS


def table() -> str:
    """Write the tables of all rules: for manifests, for running services, and for kubectl's output."""
    parts = (
        ("Manifests", sorted(RULES.values(), key=lambda rule: rule.id)),
        ("Live", live_rules()),
        ("Symptoms", SYMPTOMS),
    )
    return "\n\n".join(f"### {title}\n\n{_rows(rules)}" for title, rules in parts)


def _rows(rules: Iterable[Rule]) -> str:
    rows = ["| rule | finds | at most | source |", "|---|---|---|---|"]
    for rule in rules:
        number = rule.section.partition("-")[0]
        rows.append(
            f'| <a id="{rule.id.lower()}"></a>{rule.id}<br>`{rule.name}`<br>[{number}](failure-modes.md#{rule.section})'
            f" | {_cell(rule.about)} | {rule.severity.word} | {_cell(rule.source)} |"
        )
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
