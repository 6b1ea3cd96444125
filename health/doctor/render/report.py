"""What a run found, whatever it looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..finding import Finding, Severity
from ..repair import patch


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding, ready to be shown."""

    id: str
    name: str
    severity: Severity
    reason: str
    link: str
    repair: str  # YAML, or a sentence
    object: str = ""
    field: str = ""
    file: str = ""
    document: int = 0
    line: int = 0


@dataclass
class Report:
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    colour: bool = False

    def worst(self) -> Severity | None:
        return max((entry.severity for entry in self.entries), default=None)


def entry_of(finding: Finding) -> Entry:
    yaml = patch(finding)
    repair = "\n".join(
        part for part in (yaml, finding.advice and f"# {finding.advice}" if yaml else finding.advice) if part
    )
    return Entry(
        finding.rule.id,
        finding.rule.name,
        finding.severity,
        finding.reason,
        finding.rule.link,
        repair,
        finding.object.id,
        finding.place.field,
        finding.object.file,
        finding.object.document,
        finding.place.line,
    )
