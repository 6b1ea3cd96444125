"""Findings, and the table of rules that make them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .place import Object, Place

if TYPE_CHECKING:
    from .model import Model


class Severity(enum.IntEnum):
    NOTE = 1  # worth knowing, or true only under the assumption that the reason states
    RISKS = 2  # breaks streams or pods when something ordinary happens: load, a slow node, a quiet channel
    BREAKS = 3  # breaks streams or pods as it is: at the start, at each rollout, or after a fixed time

    @property
    def word(self) -> str:
        return self.name.lower()


NOTE, RISKS, BREAKS = Severity.NOTE, Severity.RISKS, Severity.BREAKS


class Delete:
    """The value of a change that removes a field."""


DELETE = Delete()


@dataclass(frozen=True, slots=True)
class Swap:
    """The value of a change that replaces a field by another one: `httpGet` becomes `tcpSocket`."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One repair of one field."""

    place: Place
    value: Any  # strings, numbers, booleans, lists and dictionaries; DELETE; or a Swap
    why: str  # the comment on the line above; one line


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule says about one place."""

    place: Place
    reason: str
    changes: tuple[Change, ...] = ()
    severity: Severity | None = None  # None: the rule's own
    advice: str = ""  # what to do if YAML cannot repair it


#: A check of a model (manifests), of what was watched (live), or of a text (symptoms).
Check = Callable[..., Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the table."""

    id: str
    name: str
    severity: Severity  # the highest that it gives
    section: str  # the anchor in docs/failure-modes.md
    check: Check

    @property
    def link(self) -> str:
        return f"docs/failure-modes.md#{self.section}"

    @property
    def about(self) -> str:
        """Return what it looks for: the docstring up to its sources."""
        return " ".join((self.check.__doc__ or "").partition("Source:")[0].split())

    @property
    def source(self) -> str:
        return " ".join((self.check.__doc__ or "").partition("Source:")[2].split())


@dataclass(frozen=True, slots=True)
class Finding:
    """One reported fault of one field."""

    rule: Rule
    severity: Severity
    place: Place
    reason: str
    changes: tuple[Change, ...]
    advice: str

    @property
    def object(self) -> Object:
        return self.place.object


#: All rules, by id.
RULES: dict[str, Rule] = {}

#: The sections of docs/failure-modes.md.
SECTIONS = {
    1: "1-every-connection-of-the-pool-is-a-stream",
    2: "2-a-probe-that-is-aimed-at-a-stream",
    3: "3-a-start-that-is-slower-than-the-liveness-probe",
    4: "4-kept-alive-and-pipelined-probes",
    5: "5-connection-close-gets-lost",
    6: "6-200-from-the-probe-and-no-event-arrives",
    7: "7-a-view-blocks-the-event-loop",
    8: "8-readers-that-stall",
    9: "9-sigterm-cuts-streams",
    10: "10-slow-headers",
    11: "11-something-on-the-way-holds-events-back",
    12: "12-the-log-or-database-cannot-be-reached",
    13: "13-everybody-comes-back-at-once",
}


def rule(id: str, name: str, severity: Severity, section: int) -> Callable[[Check], Check]:
    """Enter a check into the table. Its docstring says what it finds and, after ``Source:``, who says so."""

    def enter(check: Check) -> Check:
        assert id not in RULES, id
        RULES[id] = Rule(id, name, severity, SECTIONS[section], check)
        return check

    return enter


def examine(model: Model) -> list[Finding]:
    """Run every rule. One fault is one finding: a rule reports a field once."""
    found: dict[tuple[int, str, str], Finding] = {}
    for entry in RULES.values():
        for each in entry.check(model):
            severity = each.severity or entry.severity
            finding = Finding(entry, severity, each.place, each.reason, each.changes, each.advice)
            found.setdefault((id(each.place.object), each.place.field, entry.id), finding)
    return sorted(found.values(), key=_order)


def _order(finding: Finding) -> tuple[Any, ...]:
    return (-finding.severity, finding.object.file, finding.object.document, finding.place.line, finding.rule.id)


def of_kind(objects: Iterable[Object], *kinds: str) -> Iterator[Object]:
    return (each for each in objects if each.kind in kinds)
