"""What a log stores of an idempotent publish: the scoped key, and a digest of the events and of what they close."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from .model import Event


def scoped(key: str, events: Sequence[Event], close: Collection[str] = ()) -> str:
    """Return the key as the log stores it, scoped to the channels of the events, and those that are closed.

    Threat: a publisher to one channel uses up the keys of others (``order-7``, ``order-8``), whose publishes are then
    refused. The scope is not the token, because a publisher may repeat a publish with a new one.
    """
    channels = "\n".join(sorted({*close, *(event.channel for event in events)}))
    return f"{hashlib.sha256(channels.encode()).hexdigest()[:32]}:{key}"


def digest_of(events: Sequence[Event], close: Collection[str] = ()) -> bytes:
    """Return SHA-256 over every field of every event, and the channels that are closed with them.

    Two publishes with the same digest are the same.

    Logs store it, so no version of this service may compute it differently.
    """
    digest = hashlib.sha256()
    for event in events:
        channel, data = event.channel.encode(), event.data.encode()
        kind, retry = _optional(event.event), _optional(event.retry)
        digest.update(b"%d:\1%b%b%b%d:\1%b" % (len(channel) + 1, channel, kind, retry, len(data) + 1, data))
    for name in sorted(set(close)):
        digest.update(b"close:%b\n" % name.encode())  # an event's part begins with a digit
    return digest.digest()


def _optional(value: str | int | None) -> bytes:
    if value is None:
        return b"1:\0"
    piece = str(value).encode()
    return b"%d:\1%b" % (len(piece) + 1, piece)
