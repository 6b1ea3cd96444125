"""For other programs: the shape is documented in docs/doctor.md, and only grows."""

from __future__ import annotations

import json as _json

from .report import Report


def json(report: Report) -> str:
    findings = [
        {
            "id": entry.id,
            "name": entry.name,
            "severity": entry.severity.word,
            "file": entry.file,
            "document": entry.document,
            "line": entry.line,
            "object": entry.object,
            "field": entry.field,
            "reason": entry.reason,
            "repair": entry.repair,
            "link": entry.link,
        }
        for entry in report.entries
    ]
    return _json.dumps({"findings": findings, "notes": report.notes}, indent=2, ensure_ascii=False)
