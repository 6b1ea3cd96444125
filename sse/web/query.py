"""Read what a request asks for: channels, types and cursor, and whether it accepts a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from werkzeug.wrappers import Request

from ..events.model import InvalidEvent, MalformedCursor, check_channel, parse_id, parse_since
from ..events.names import INJECTED_CHANNELS
from ..events.patterns import check_pattern, is_pattern, is_reserved
from .problems import Problem


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


def checked_channel(channel: str, *, reading: bool = False) -> str:
    """Check a channel's name, and return it. Only readers may name a reserved channel. Raises Problem (400)."""
    try:
        return check_channel(channel, reserved_ok=reading and channel in INJECTED_CHANNELS)
    except InvalidEvent as error:
        raise Problem(400, str(error), field="channel") from None


def checked_selector(selector: str) -> None:
    """Check what a reader asks for: a channel's name, or a pattern. Raises Problem (400)."""
    if not is_pattern(selector):
        checked_channel(selector, reading=True)
        return
    if is_reserved(selector):
        raise Problem(400, "channel: no pattern matches a name that begins with _, which is reserved", field="channel")
    try:
        check_pattern(selector)
    except ValueError as error:
        raise Problem(400, f"channel: {error}", field="channel") from None


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
_RANGES: Final = (("text/event-stream",), ("text/*",), ("*/*", "*"))


def accepts_stream(accept: str) -> bool:
    """Tell whether an Accept header allows text/event-stream, with any parameters (a charset, a version).

    Only a weight of zero excludes it; malformed weights do not (HttpURLConnection sent ``q=.2`` for years).
    """
    allowed: dict[str, bool] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name:
            weights = [value.strip() for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"]
            allowed[name] = allowed.get(name, False) or not (weights and _is_zero(weights[0]))
    return not allowed or next((allowed[name] for names in _RANGES for name in names if name in allowed), False)


def _is_zero(weight: str) -> bool:
    return bool(weight) and not weight.strip("0.")
