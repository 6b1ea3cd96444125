"""How a setting is declared: default, range and reason in one place, from which errors and the table are made."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def number(default: float, low: float, high: float, unit: str, why: str, *, live: bool = False) -> Any:
    """A number with its range, both ends allowed. ``unit`` is a plural noun, or empty. ``live``: a change in the
    settings file counts at once, with streams open; whoever reads such a setting reads it when it is needed."""
    return Field(default, ge=low, le=high, title=unit, description=why, json_schema_extra={"live": live})


def text(default: Any, allowed: str, why: str, *, live: bool = False, **more: Any) -> Any:
    """Anything else. ``allowed`` completes "it must be …"."""
    return Field(default, description=why, json_schema_extra={"allowed": allowed, "live": live}, **more)
