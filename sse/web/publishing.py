"""From a request's body to events: the part of publishing that only knows bytes.

The body of a publish *is* the data, verbatim. A batch is NDJSON: :mod:`sse.web.ndjson`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ..events.model import Event, InvalidEvent
from .problems import Problem

# Printable ASCII, as the IETF draft on the header has it for its string form; 255 keeps an index entry small.
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")


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
    """What makes two publishes "the same" for an idempotency key: SHA-256 over every field of every event. Logs keep
    it: as it is made here, every version of this service has to make it."""
    digest = hashlib.sha256()
    for event in events:
        channel, data = event.channel.encode(), event.data.encode()
        kind, retry = _optional(event.event), _optional(event.retry)
        digest.update(b"%d:\1%b%b%b%d:\1%b" % (len(channel) + 1, channel, kind, retry, len(data) + 1, data))
    return digest.digest()


def _optional(value: str | int | None) -> bytes:
    if value is None:
        return b"1:\0"
    piece = str(value).encode()
    return b"%d:\1%b" % (len(piece) + 1, piece)


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
