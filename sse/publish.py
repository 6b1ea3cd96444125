"""From a request's body to events: the part of publishing that only knows bytes.

The body of a publish *is* the data, verbatim; a batch is NDJSON, all or nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sse.event import Event, InvalidEvent
from sse.problems import Problem
from sse.runtime import breathe

# Printable ASCII, as the IETF draft on the header has it for its string form; 255 keeps an index entry small.
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")

# A batch is parsed in steps of so many lines, between which the event loop is let run (threat: one publisher's
# batch of 10,000 lines holds up every probe).
LINES_PER_STEP = 256


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members. RFC 8259 §4: names should be unique, and what software makes of others is unpredictable: a
    check in front of us may have read the first, and Python would keep the last. Raises ValueError."""
    members = dict(pairs)
    if len(members) != len(pairs):
        ((twice, _),) = Counter([name for name, _ in pairs]).most_common(1)
        raise ValueError(f"the member {twice[:64]!r} is there more than once")
    return members


_decode = json.JSONDecoder(object_pairs_hook=_members).decode

_BATCH_FIELDS = frozenset({"channel", "data", "event", "retry"})


def idempotency_key(value: str | None) -> str | None:
    """The header's value, checked. Raises Problem (400)."""
    if value is not None and not KEY_PATTERN.fullmatch(value):
        raise Problem(400, "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces")
    return value


def scoped(key: str, events: Sequence[Event]) -> str:
    """The key as the log remembers it: one for each set of channels (threat: who may publish somewhere uses up the keys
    of others, ``order-7``, ``order-8``, and their publishes are refused). Not for each token: a publisher that repeats
    may have a new one by then."""
    channels = "\n".join(sorted({event.channel for event in events}))
    return f"{hashlib.sha256(channels.encode()).hexdigest()[:32]}:{key}"


def digest_of(events: Sequence[Event]) -> bytes:
    """What makes two publishes "the same" for an idempotency key: SHA-256 over every field of every event."""
    digest = hashlib.sha256()
    for event in events:
        for part in (event.channel, event.event, event.retry, event.data):
            piece = b"\0" if part is None else b"\1" + str(part).encode()
            digest.update(b"%d:%b" % (len(piece), piece))
    return digest.digest()


def single(channel: str, body: bytes, event: str | None, retry: str | None) -> Event:
    """The event of ``POST /events/<channel>``. Raises Problem (400)."""
    if retry is not None and not (retry.isascii() and retry.isdigit() and len(retry) <= 10):
        raise Problem(400, f"retry must be a number of milliseconds, digits only, not {retry[:32]!r}", field="retry")
    try:
        return Event(channel, decoded(body), event, None if retry is None else int(retry))
    except InvalidEvent as error:
        raise Problem(400, str(error), field=error.field) from None


def decoded(body: bytes) -> str:
    """UTF-8 text. Raises Problem (400) that names the offset of the first bad byte."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8: bad byte at offset {error.start}", offset=error.start) from None


def batch(body: bytes, *, max_events: int, max_event_bytes: int) -> list[Event]:
    """The events of an NDJSON batch (one JSON object a line; empty lines are skipped). Raises Problem (400 with the
    line's number, counted from 1; 413 beyond a limit)."""
    events: list[Event] = []
    for number, line in enumerate(body.removeprefix(BOM_UTF8).split(b"\n"), 1):
        if number % LINES_PER_STEP == 0:
            breathe()
        if not line or line.isspace():
            continue
        if len(events) >= max_events:
            raise Problem(413, f"a batch has at most {max_events} events (SSE_MAX_BATCH_EVENTS)", limit=max_events)
        try:
            events.append(_event_of(line, max_event_bytes))
        except InvalidEvent as error:
            raise Problem(400, f"line {number}: {error}", line=number, field=error.field) from None
        except (ValueError, RecursionError) as error:
            raise Problem(400, f"line {number}: {error}", line=number) from None
        except Problem as problem:
            raise Problem(problem.status, f"line {number}: {problem.detail}", line=number) from None
    if not events:
        raise Problem(400, "the batch has no events")
    return events


def _event_of(line: bytes, max_event_bytes: int) -> Event:
    try:
        fields: Any = _decode(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: bad byte at offset {error.start} of the line") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(fields, dict):
        raise ValueError("must be a JSON object")
    if not _BATCH_FIELDS.issuperset(fields):
        unknown = sorted(set(fields) - _BATCH_FIELDS)
        raise ValueError(f"unknown member {unknown[0][:64]!r}; an event has channel, data, event and retry")
    for name in ("channel", "data"):
        if name not in fields:
            raise ValueError(f"has no member {name!r}")
    data = fields["data"]
    if not isinstance(data, str):
        data = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    event = Event(fields["channel"], data, fields.get("event"), fields.get("retry"))
    if len(data) > max_event_bytes or (not data.isascii() and len(data.encode()) > max_event_bytes):
        raise Problem(413, f"data is over {max_event_bytes} bytes (SSE_MAX_EVENT_BYTES)")
    return event
