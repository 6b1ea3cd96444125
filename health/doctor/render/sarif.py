"""SARIF 2.1.0 (OASIS), for code scanning."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from ..finding import RULES, Severity
from .report import Report

_LEVELS = {Severity.BREAKS: "error", Severity.RISKS: "warning", Severity.NOTE: "note"}


def sarif(report: Report) -> str:
    used = sorted({entry.id for entry in report.entries})
    names = {entry.id: entry for entry in report.entries}
    rules = []
    for id in used:
        rule = RULES.get(id)
        about = rule.about if rule else names[id].name.replace("-", " ")
        rules.append(
            {
                "id": id,
                "name": names[id].name,
                "shortDescription": {"text": about},
                "help": {"text": f"{about} See {names[id].link}."},
                "defaultConfiguration": {"level": _LEVELS[rule.severity if rule else names[id].severity]},
            }
        )
    results: list[dict[str, Any]] = []
    for entry in report.entries:
        result: dict[str, Any] = {
            "ruleId": entry.id,
            "ruleIndex": used.index(entry.id),
            "level": _LEVELS[entry.severity],
            "message": {"text": f"{entry.object} {entry.field}: {entry.reason}".strip()},
            # Stable while lines move, so that a finding is recognised in the next run.
            "partialFingerprints": {"headwaterDoctor/v1": f"{entry.id}:{entry.object}:{entry.field}"},
        }
        uri = quote(entry.file or "stdin", safe="/:")
        result["locations"] = [
            {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": max(1, entry.line)}}}
        ]
        results.append(result)
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "headwater-doctor", "rules": rules}}, "results": results}],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)
