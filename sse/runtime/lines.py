"""Log lines made of fields."""

from __future__ import annotations

import json
from typing import Final

# Characters that a value may contain without being quoted.
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:/*,@+~[]")


class Line:
    """A log line made of fields: ``logger.info(Line("stream", client=…, events=…))``.

    In JSON the kind is ``message`` and the fields are members beside it. In text they follow it as ``name=value``,
    quoted by JSON's rules, so that no request can forge a line or a field (threat: log injection).
    """

    __slots__ = ("fields", "kind")

    def __init__(self, kind: str, **fields: str | int | float) -> None:
        self.kind = kind
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={quoted(value)}" for name, value in self.fields.items())])


def quoted(value: object) -> str:
    """Return the value as text that cannot end its field or its line."""
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)
