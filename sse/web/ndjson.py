"""Read the events of a batch. A batch is NDJSON, one JSON object a line, all or nothing.

Theory of operation
===================

`_line_by_line` defines what a batch is: every rule, every message, every line's number. It costs 5 µs an event, mostly
in function calls. So the body is split into pieces of whole lines, and each piece first goes to `_at_once`, which
decodes, checks and converts many lines in one call (1.2 µs an event). `_at_once` returns exactly what `_line_by_line`
would, or None if it is not sure; then the piece is read line by line. So it may be too strict, but never too lenient.
It must notice two faults that are obvious when lines are read alone:

**An object that runs over a line's end, or two objects in a line.** To JSON a line break is white space. So the piece
becomes one array in which ``,NaN,`` follows each line break. Inside an object that is a syntax error (a name must
follow), and inside a string too (a raw line break is forbidden). In an array within an event's data it becomes a value
NaN, and such data cannot be encoded as JSON again. So every NaN stands between two elements of the piece's own array,
which has the right length only if each line is one object.

**A repeated member.** A dict keeps the last one. But every JSON string begins and ends with a quote: if a member was
dropped, the text has more quotes than the strings that are left.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections import Counter
from typing import Any, Final

from ..events.batch import make_events
from ..events.model import Event, InvalidEvent, check_channel
from ..runtime.cooperation import breathe
from .problems import Problem

# The event loop gets a turn after each piece of so many bytes, and after so many lines read one by one (threat: one
# publisher's batch of 10,000 lines delays every probe). Either takes 2 to 4 ms with the shortest possible lines.
BYTES_PER_STEP: Final = 32 * 1024
LINES_PER_STEP: Final = 256

_MEMBERS: Final = frozenset({"channel", "data", "event", "retry"})
_CLOSE: Final = "close"  # only `_line_by_line` knows it: few lines have it
_BETWEEN_LINES: Final = "\n,NaN,"


class Batch(list[Event]):
    """The events of a batch, in order.

    closing: the channels to close after these events, in the order of their lines. If a line only closes, without an
    event: the number of events before it; else None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.closing: dict[str, int | None] = {}

    @property
    def lines(self) -> int:
        return len(self) + sum(1 for place in self.closing.values() if place is not None)


def batch(body: bytes, *, max_events: int, max_event_bytes: int) -> Batch:
    """Read an NDJSON batch; skips empty lines.

    Raises Problem: 400 with the line's number, counted from 1; 413 beyond a limit.
    """
    body = body.removeprefix(BOM_UTF8)
    events = Batch()
    begin, number = 0, 1
    while begin < len(body):
        if begin:
            breathe()
        end = _end_of_piece(body, begin)
        piece = body[begin:end]
        # Once a channel is closed, each later line is compared with it.
        most = 0 if events.closing else max_events - len(events)
        found = _at_once(piece.strip(b"\n"), most, max_event_bytes)
        if found is None:
            _line_by_line(piece, number, events, max_events, max_event_bytes)
        else:
            events += found
        number += piece.count(b"\n") + 1
        begin = end + 1
    if not events and not events.closing:
        raise Problem(400, "the batch has no events")
    return events


def _end_of_piece(body: bytes, begin: int) -> int:
    """Return where the piece ends: at the last line break within a step. A longer line is a piece of its own."""
    step = begin + BYTES_PER_STEP
    if step >= len(body):
        return len(body)
    end = body.rfind(b"\n", begin, step)
    if end < 0:
        end = body.find(b"\n", step)
    return end if end >= 0 else len(body)


# ── line by line ──────────────────────────────────────────────────────────────────────────────────────────────


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members.

    Raises ValueError if a name is repeated (threat: a filter in front of us reads the first, and Python the last). RFC
    8259 §4: names should be unique, or the behaviour of the receiving software is unpredictable.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        ((twice, _),) = Counter([name for name, _ in pairs]).most_common(1)
        raise ValueError(f"the member {twice[:64]!r} is there more than once")
    return members


_decode_strictly = json.JSONDecoder(object_pairs_hook=_members).decode
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _line_by_line(piece: bytes, first: int, events: Batch, max_events: int, max_event_bytes: int) -> None:
    """Read a piece's lines into ``events``; ``first`` is the number of its first line. Raises Problem."""
    lines = events.lines
    for number, line in enumerate(piece.split(b"\n"), first):
        if number % LINES_PER_STEP == 0:
            breathe()
        if not line or line.isspace():
            continue
        lines += 1
        if lines > max_events:
            raise Problem(413, f"a batch has at most {max_events} events (SSE_MAX_BATCH_EVENTS)", limit=max_events)
        try:
            _take(line, events, max_event_bytes)
        except InvalidEvent as error:
            raise Problem(400, f"line {number}: {error}", line=number, field=error.field) from None
        except (ValueError, RecursionError) as error:
            raise Problem(400, f"line {number}: {error}", line=number) from None
        except Problem as problem:
            raise Problem(problem.status, f"line {number}: {problem.detail}", line=number) from None


def _take(line: bytes, events: Batch, max_event_bytes: int) -> None:
    """Add a line to the batch. Raises Problem, InvalidEvent, ValueError, RecursionError."""
    try:
        fields: Any = _decode_strictly(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: bad byte at offset {error.start} of the line") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(fields, dict):
        raise ValueError("must be a JSON object")
    close = fields.pop(_CLOSE, None)
    if not _MEMBERS.issuperset(fields):
        unknown = sorted(set(fields) - _MEMBERS)
        raise ValueError(f"unknown member {unknown[0][:64]!r}; an event has channel, data, event, retry and close")
    if not isinstance(close, bool | None):
        raise ValueError("close must be true or false")
    if close and fields.keys() == {"channel"}:
        channel = check_channel(fields["channel"])
        _close(events, channel, len(events))
        return
    for name in ("channel", "data"):
        if name not in fields:
            raise ValueError(f"has no member {name!r}")
    data = fields["data"]
    if not isinstance(data, str):
        data = _compact(data)
    event = Event(fields["channel"], data, fields.get("event"), fields.get("retry"))
    if len(data) > max_event_bytes or (not data.isascii() and len(data.encode()) > max_event_bytes):
        raise Problem(413, f"data is over {max_event_bytes} bytes (SSE_MAX_EVENT_BYTES)")
    if event.channel in events.closing:
        raise ValueError(f"{event.channel} was closed by a line before")
    events.append(event)
    if close:
        _close(events, event.channel, None)


def _close(events: Batch, channel: str, place: int | None) -> None:
    if channel in events.closing:
        raise ValueError(f"{channel} was closed by a line before")
    events.closing[channel] = place


# ── many lines at once ────────────────────────────────────────────────────────────────────────────────────────

_decode = json.JSONDecoder().decode


def _at_once(piece: bytes, most: int, max_event_bytes: int) -> list[Event] | None:
    """Return what `_line_by_line` would for this piece, or None if unsure. Raises nothing."""
    count = piece.count(b"\n") + 1
    if count > most or len(piece) > BYTES_PER_STEP:  # do not read a line of megabytes twice
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
    # A character has at most four bytes in UTF-8.
    if longest * 4 > max_event_bytes and any(len(one.encode()) > max_event_bytes for one in data if not one.isascii()):
        return None
    return events


def _write_compactly(data: list[Any]) -> int:
    """Replace the values of ``data`` that are not strings by their compact JSON.

    Returns how many more quotes the batch's text has for these values than if each were a string. Raises ValueError
    (also if a value contains the separator), RecursionError.
    """
    places = [index for index, value in enumerate(data) if type(value) is not str]
    # Encode all values as one array, with a separator between them: half the cost of an encoder is to set it up.
    spaced = ["\0"] * (2 * len(places) - 1)
    spaced[::2] = [data[place] for place in places]
    text = _compact(spaced)
    for place, encoded in zip(places, text[1:-1].split(',"\\u0000",'), strict=True):
        data[place] = encoded
    of_separators = 2 * (len(places) - 1)
    return _quotes(text) - of_separators - 2 * len(places)


def _quotes(text: str) -> int:
    """Count the quotes that begin or end a string of a JSON text: those that no backslash escapes."""
    quotes = text.count('"')
    if "\\" in text:
        # A backslash that is left when all pairs of them are removed escapes the next character.
        quotes -= text.replace("\\\\", "").count('\\"')
    return quotes
