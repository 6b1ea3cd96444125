"""Declares settings: default, range and reason in one place; errors and the documentation table use them."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import Field


def number(default: float, low: float, high: float, unit: str, why: str, *, live: bool = False) -> Any:
    """Declare a number with an inclusive range.

    unit: a plural noun, or empty.
    why: what it is for, in sentences for users.
    live: may change while streams are open, so read it at the point of use.
    """
    return Field(default, ge=low, le=high, title=unit, description=why, json_schema_extra={"live": live})


def text(default: Any, allowed: str, why: str, *, live: bool = False, **more: Any) -> Any:
    """Declare any other setting. ``allowed`` completes "it must be …"."""
    return Field(default, description=why, json_schema_extra={"allowed": allowed, "live": live}, **more)


live_number = partial(number, live=True)
live_text = partial(text, live=True)
