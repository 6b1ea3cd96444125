"""What arguments mean. Each function takes text, and raises ValueError with what is wrong with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def checked(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make a click callback of such a function: for a value, or for each of several."""

    def convert(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(parse(one) for one in value)
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return convert


def duration(text: str) -> int:
    """Return seconds for ``90s``, ``15m``, ``12h`` or ``30d``; a number alone is seconds."""
    found = re.fullmatch(r"([0-9]{1,10})([smhd]?)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration, such as 90s, 15m, 12h or 30d")
    return int(found[1]) * _UNITS[found[2] or "s"]


def since(text: str) -> str:
    """Return where to begin in the form of ``?since=``: ``earliest``, an id, unix milliseconds. ``10m`` is an age."""
    from ..sse.events.model import MalformedCursor, parse_since

    if text[-1:] in _UNITS and text[:-1].isdecimal():
        return str(max(int((time.time() - duration(text)) * 1000), 0))
    try:
        parse_since(text)
    except MalformedCursor:
        raise ValueError(f"{text!r} is not an id, unix milliseconds, earliest, or an age such as 10m") from None
    return text


def channel(text: str) -> str:
    """Check a channel's name."""
    from ..sse.events.model import check_channel

    return check_channel(text)


def selector(text: str) -> str:
    """Check what may be listened to: a channel's name, or the beginning of one and ``*``."""
    from ..sse.events.patterns import check_pattern, is_pattern, is_reserved

    return check_pattern(text) if is_pattern(text) and not is_reserved(text) else channel(text)


def patterns(text: str) -> list[str]:
    """Check what a token may allow: names and patterns, separated by commas."""
    from ..sse.events.patterns import check_pattern

    return [check_pattern(part.strip()) for part in text.split(",") if part.strip()]
