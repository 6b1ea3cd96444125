"""The table of rules as Markdown, for docs/doctor.md."""

from __future__ import annotations

from . import rules as _rules  # noqa: F401  (fills the table)
from .finding import RULES


def table() -> str:
    rows = ["| id | finds | at most | source |", "|---|---|---|---|"]
    for rule in sorted(RULES.values(), key=lambda each: each.id):
        section = rule.section.partition("-")[0]
        rows.append(
            f'| <a id="{rule.id.lower()}"></a>{rule.id} `{rule.name}` ([{section}](failure-modes.md#{rule.section}))'
            f" | {_cell(rule.about)} | {rule.severity.word} | {_cell(rule.source)} |"
        )
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
