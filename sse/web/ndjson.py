"""From the body of a batch to its events. A batch is NDJSON, one JSON object a line, all or nothing.

Theory of operation
===================

`_line_by_line` is the definition of what a batch is: every rule, every message, every line's number. It costs 5 µs an
event, most of it in calls. So a body is taken in pieces of whole lines, and each piece is first tried as a whole by
`_at_once`, which hands many lines in one call to JSON's scanner, to the checks and to the making of events (1.2 µs an
event). It returns exactly what `_line_by_line` would, or None, for whatever reason: then the piece goes line by line.
So it may be as strict as it likes, and never lenient. Two things it must notice that a line alone shows by itself:

**Where lines end.** A line break is white space to JSON, so an object may run over a line's end, and a line may hold
two objects. The piece becomes one array in which ``,NaN,`` follows each line break. That breaks every object it falls
into (a name is due there) and every string (a raw line break is not allowed in one). In an array inside an event's data
it is one more value, a NaN, with which that data cannot be written as JSON again. So each of them stands between two
elements of the piece's own array, and that has as many as it should only if each line is exactly one.

**A member that is there twice.** A dict keeps the last one. But each string of a JSON text begins and ends with a
quote: if a member was dropped, the text has more quotes than the strings that are left account for.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections import Counter
from typing import Any, Final

from ..events.batch import make_events
from ..events.model import Event, InvalidEvent
from ..runtime.cooperation import breathe
from .problems import Problem

# The event loop runs between two pieces, and after this many lines one by one (threat: one publisher's batch of 10,000
# lines delays every probe). Either takes 2 to 4 ms with the shortest possible lines.
BYTES_PER_STEP: Final = 32 * 1024
LINES_PER_STEP: Final = 256

_MEMBERS: Final = frozenset({"channel", "data", "event", "retry"})
_BETWEEN_LINES: Final = "\n,NaN,"


def batch(body: bytes, *, max_events: int, max_event_bytes: int) -> list[Event]:
    """Read the events of an NDJSON batch; skips empty lines.

    Raises Problem: 400 with the line's number, counted from 1; 413 beyond a limit.
    """
    body = body.removeprefix(BOM_UTF8)
    events: list[Event] = []
    begin, number = 0, 1
    while begin < len(body):
        if begin:
            breathe()
        end = _end_of_piece(body, begin)
        piece = body[begin:end]
        most = max_events - len(events)
        found = _at_once(piece.strip(b"\n"), most, max_event_bytes)
        if found is None:
            found = _line_by_line(piece, number, most, max_events, max_event_bytes)
        events += found
        number += piece.count(b"\n") + 1
        begin = end + 1
    if not events:
        raise Problem(400, "the batch has no events")
    return events


def _end_of_piece(body: bytes, begin: int) -> int:
    """Where the piece ends that begins there: at the last line break of a step. A longer line is one by itself."""
    step = begin + BYTES_PER_STEP
    if step >= len(body):
        return len(body)
    end = body.rfind(b"\n", begin, step)
    if end < 0:
        end = body.find(b"\n", step)
    return end if end >= 0 else len(body)


# ── line by line ──────────────────────────────────────────────────────────────────────────────────────────────


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members. RFC 8259 §4: names should be unique, and what software makes of others is unpredictable: a
    check in front of us may have read the first, and Python would keep the last. Raises ValueError."""
    members = dict(pairs)
    if len(members) != len(pairs):
        ((twice, _),) = Counter([name for name, _ in pairs]).most_common(1)
        raise ValueError(f"the member {twice[:64]!r} is there more than once")
    return members


_decode_strictly = json.JSONDecoder(object_pairs_hook=_members).decode
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _line_by_line(piece: bytes, first: int, most: int, max_events: int, max_event_bytes: int) -> list[Event]:
    """The events of these lines, at most ``most``; ``first`` is the first line's number. Raises Problem."""
    events: list[Event] = []
    for number, line in enumerate(piece.split(b"\n"), first):
        if number % LINES_PER_STEP == 0:
            breathe()
        if not line or line.isspace():
            continue
        if len(events) >= most:
            raise Problem(413, f"a batch has at most {max_events} events (SSE_MAX_BATCH_EVENTS)", limit=max_events)
        try:
            events.append(_event_of(line, max_event_bytes))
        except InvalidEvent as error:
            raise Problem(400, f"line {number}: {error}", line=number, field=error.field) from None
        except (ValueError, RecursionError) as error:
            raise Problem(400, f"line {number}: {error}", line=number) from None
        except Problem as problem:
            raise Problem(problem.status, f"line {number}: {problem.detail}", line=number) from None
    return events


def _event_of(line: bytes, max_event_bytes: int) -> Event:
    try:
        fields: Any = _decode_strictly(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: bad byte at offset {error.start} of the line") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(fields, dict):
        raise ValueError("must be a JSON object")
    if not _MEMBERS.issuperset(fields):
        unknown = sorted(set(fields) - _MEMBERS)
        raise ValueError(f"unknown member {unknown[0][:64]!r}; an event has channel, data, event and retry")
    for name in ("channel", "data"):
        if name not in fields:
            raise ValueError(f"has no member {name!r}")
    data = fields["data"]
    if not isinstance(data, str):
        data = _compact(data)
    event = Event(fields["channel"], data, fields.get("event"), fields.get("retry"))
    if len(data) > max_event_bytes or (not data.isascii() and len(data.encode()) > max_event_bytes):
        raise Problem(413, f"data is over {max_event_bytes} bytes (SSE_MAX_EVENT_BYTES)")
    return event


# ── many lines at once ────────────────────────────────────────────────────────────────────────────────────────

_decode = json.JSONDecoder().decode


def _at_once(piece: bytes, most: int, max_event_bytes: int) -> list[Event] | None:
    """What `_line_by_line` returns for these lines, or None where it is to be asked: nothing is raised."""
    count = piece.count(b"\n") + 1
    if count > most or len(piece) > BYTES_PER_STEP:  # the latter: a line of megabytes is not read twice
        return None
    try:
        text = piece.decode()
        elements = _decode("[" + text.replace("\n", _BETWEEN_LINES) + "]")
        lines: list[dict[str, Any]] = elements[::2]
        if len(elements) != 2 * count - 1 or set(map(type, lines)) != {dict}:
            return None
        channels = [line["channel"] for line in lines]
        data = [line["data"] for line in lines]
        members = sum(map(len, lines))
        strings = members + 2 * count  # names and values
        kinds = retries = None
        if members > 2 * count:
            if not all(map(_MEMBERS.issuperset, lines)):
                return None
            kinds, retries = [line.get("event") for line in lines], [line.get("retry") for line in lines]
            strings += count - kinds.count(None)
        quotes = 2 * strings
        if set(map(type, data)) != {str}:
            quotes += _write_compactly(data)
        if quotes != _quotes(text):
            return None
        events = make_events(channels, data, kinds, retries)
    except (ValueError, RecursionError, KeyError):
        return None
    longest = max(map(len, data))
    if longest > max_event_bytes:
        return None
    # Four bytes are the most of a character in UTF-8.
    if longest * 4 > max_event_bytes and any(len(one.encode()) > max_event_bytes for one in data if not one.isascii()):
        return None
    return events


def _write_compactly(data: list[Any]) -> int:
    """Replace what is not a string in ``data`` by its compact JSON; return how many quotes more there are in it than if
    it were strings. Raises ValueError, RecursionError."""
    places = [index for index, value in enumerate(data) if type(value) is not str]
    # As one array with a mark between each two: half of what an encoder costs is to make it. Where a value has the mark
    # inside itself, there are more pieces than places.
    spaced = ["\0"] * (2 * len(places) - 1)
    spaced[::2] = [data[place] for place in places]
    text = _compact(spaced)
    for place, written in zip(places, text[1:-1].split(',"\\u0000",'), strict=True):
        data[place] = written
    of_marks = 2 * (len(places) - 1)
    return _quotes(text) - of_marks - 2 * len(places)


def _quotes(text: str) -> int:
    """How many quotes of a JSON text begin or end a string: those that no backslash escapes."""
    quotes = text.count('"')
    if "\\" in text:
        # What is left of a backslash when pairs of them are gone escapes what follows it.
        quotes -= text.replace("\\\\", "").count('\\"')
    return quotes
