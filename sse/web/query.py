"""Read what a request asks for: channels, types and cursor, and whether it accepts a stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import unquote_to_bytes

from werkzeug.wrappers import Request

from ..events.model import InvalidEvent, MalformedCursor, check_channel, parse_id, parse_since
from ..events.names import INJECTED_CHANNELS
from ..events.patterns import check_pattern, is_pattern, is_reserved
from .problems import Problem

# Events of one page of history, or channels of one page of the list, if the request does not say; and events at most.
PAGE: Final = 100
PAGE_MOST: Final = 1000

# Seconds that a request may wait for an event.
WAIT_MOST: Final = 60


def check_query(request: Request) -> None:
    """Refuse a query that is not UTF-8; decoded leniently, it would name an event type that the client did not mean.

    Raises Problem (400).
    """
    query = request.query_string
    try:
        (unquote_to_bytes(query) if b"%" in query else query).decode()
    except UnicodeDecodeError:
        raise Problem(400, "the query is not UTF-8") from None


def flag(request: Request, name: str) -> bool:
    """Read a parameter that is 1 or 0, and 0 by default. Raises Problem (400)."""
    values = request.args.getlist(name)
    if not set(values) <= {"0", "1"} or len(set(values)) > 1:
        raise Problem(400, f"{name} is 1 or 0, not {', '.join(values)[:32]!r}", field=name)
    return "1" in values


def single_value(request: Request, name: str) -> str | None:
    """Return a parameter's value; None if it is not there. Raises Problem (400) if it is there more than once."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise Problem(400, f"{name} is there more than once", field=name)
    return values[0] if values else None


def number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Return a parameter that is a whole number. Raises Problem (400)."""
    text = single_value(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise Problem(400, f"{name} is a whole number from {low} to {high}, not {text[:32]!r}", field=name, limit=high)
    return int(text)


def checked_channel(channel: str, field: str = "channel", *, reading: bool = False) -> str:
    """Check a channel's name, and return it. Only readers may name a reserved channel.

    field: the parameter that names it. Raises Problem (400).
    """
    try:
        return check_channel(channel, reserved_ok=reading and channel in INJECTED_CHANNELS)
    except InvalidEvent as error:
        raise Problem(400, str(error).replace("channel", field, 1), field=field) from None


def checked_selector(selector: str, field: str = "channel") -> None:
    """Check what a reader asks for: a channel's name, or a pattern. Raises Problem (400)."""
    if not is_pattern(selector):
        checked_channel(selector, field, reading=True)
        return
    if is_reserved(selector):
        raise Problem(400, f"{field}: no pattern matches a name that begins with _, which is reserved", field=field)
    try:
        check_pattern(selector)
    except ValueError as error:
        raise Problem(400, f"{field}: {error}", field=field) from None


def checked_channels(channels: Collection[str], limit: int) -> None:
    """Check all that a reader asks for, names and patterns. limit: SSE_MAX_CHANNELS. Raises Problem (400)."""
    if not channels:
        raise Problem(400, "name at least one channel: …/<channel> or ?channel=a&channel=b")
    if len(channels) > limit:
        detail = f"a stream has at most {limit} channels (SSE_MAX_CHANNELS), not {len(channels)}"
        raise Problem(400, detail, limit=limit)
    for channel in channels:
        checked_selector(channel)


def asked_types(request: Request) -> frozenset[str] | None:
    """Return the event types to keep, None for all. Raises Problem (400)."""
    types = frozenset(request.args.getlist("event"))
    if "" in types:
        raise Problem(400, "event: a type has at least one character; leave event out to get all", field="event")
    return types or None


def asked_page(request: Request) -> tuple[int, int]:
    """Return how many events of history to send at most, and for how many seconds to wait for the first one.

    Raises Problem (400).
    """
    return number(request, "limit", PAGE, 1, PAGE_MOST), number(request, "wait", 0, 0, WAIT_MOST)


def asked_cursor(request: Request) -> tuple[str | None, int | None]:
    """Return where the client asks to begin: the text that it sent, and its position (None if malformed)."""
    asked = resumed_cursor(request)
    if asked[0] is not None or not request.query_string:
        return asked
    since = request.args.get("since")
    return (since, _parsed(parse_since, since)) if since else (None, None)


def resumed_cursor(request: Request) -> tuple[str | None, int | None]:
    """Return the cursor of a client that comes back, like :func:`asked_cursor`.

    The header wins, because a reconnecting EventSource sends it beside the query of its first connection.
    """
    header = request.environ.get("HTTP_LAST_EVENT_ID")
    if header:
        return header, _parsed(parse_id, header)
    if request.query_string:
        for name in ("lastEventId", "last_event_id"):
            value = request.args.get(name)
            if value:
                return value, _parsed(parse_id, value)
    return None, None


def _parsed(parse: Callable[[str], int], text: str) -> int | None:
    try:
        return parse(text)
    except MalformedCursor:
        return None


# The media ranges that match text/event-stream. The most specific one decides, so it comes first (RFC 9110 §12.5.1).
# Old JDKs send ``*`` for ``*/*``.
_WEIGHT: Final = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+", re.ASCII)
_RANGES: Final = (("text/event-stream",), ("text/*",), ("*/*", "*"))


def accepts_stream(accept: str) -> bool:
    """Tell whether an Accept header allows text/event-stream, with any parameters (a charset, a version)."""
    weights = _weights(accept)
    return not weights or next((weights[name] > 0 for names in _RANGES for name in names if name in weights), False)


def prefers_json(accept: str | None) -> bool:
    """Tell whether an Accept header asks for JSON by name, and no less than for a stream."""
    if accept is None or "json" not in accept.lower():
        return False
    weights = _weights(accept)
    json, stream = (weights.get(name, 0.0) for name in ("application/json", "text/event-stream"))
    return json > stream


def _weights(accept: str) -> dict[str, float]:
    """Return the weight of each media range, the highest if it is there more than once.

    A malformed weight excludes nothing (HttpURLConnection sent ``q=.2`` for years).
    """
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name:
            given = [value.strip() for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"]
            weights[name] = max(weights.get(name, 0.0), _weight(given[0]) if given else 1.0)
    return weights


def _weight(text: str) -> float:
    return float(text) if _WEIGHT.fullmatch(text) else 1.0
