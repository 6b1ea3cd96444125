"""The part of SARIF 2.1.0's schema that the doctor's output uses, with nothing else allowed (OASIS, sarif-schema-2.1.0.json)."""

from __future__ import annotations

from typing import Any


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


_TEXT = {"type": "string", "minLength": 1}
_MESSAGE = _object(["text"], text=_TEXT)
_LEVEL = {"enum": ["none", "note", "warning", "error"]}

_RULE = _object(
    ["id"],
    id=_TEXT,
    name=_TEXT,
    shortDescription=_MESSAGE,
    help=_MESSAGE,
    defaultConfiguration=_object([], level=_LEVEL),
)

_LOCATION = _object(
    [],
    physicalLocation=_object(
        [],
        artifactLocation=_object([], uri={"type": "string", "format": "uri-reference"}),
        region=_object([], startLine={"type": "integer", "minimum": 1}),
    ),
)

_RESULT = _object(
    ["message"],
    ruleId=_TEXT,
    ruleIndex={"type": "integer", "minimum": -1},
    level=_LEVEL,
    message=_MESSAGE,
    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
    locations={"type": "array", "items": _LOCATION},
)

SCHEMA: dict[str, Any] = {
    **_object(
        ["version", "runs"],
        version={"const": "2.1.0"},
        runs={
            "type": "array",
            "items": _object(
                ["tool"],
                tool=_object(["driver"], driver=_object(["name"], name=_TEXT, rules={"type": "array", "items": _RULE, "uniqueItems": True})),
                results={"type": "array", "items": _RESULT},
            ),
        },
        **{"$schema": {"type": "string", "format": "uri"}},
    ),
}
