"""What a log remembers of an idempotent publish: the scoped key, and a digest of the events."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .model import Event


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
