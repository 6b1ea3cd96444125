"""Appends: one script, so one round trip, whatever the number of events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from ...events.model import Event, format_id
from ..base import IDEMPOTENCY_SECONDS, ChannelClosed, IdempotencyConflict, LogUnavailable
from .client import Client
from .codec import position_of
from .errors import RETRY_AFTER, wrote_nothing
from .link import COMMAND_TIMEOUT, Argument, Link
from .scripts import APPEND

# Redis drops an append that it starts later than this many seconds after it was sent: its publisher is about to be
# told, or was told, that no answer came in time, and may have repeated it. Shorter than COMMAND_TIMEOUT by the time
# that an answer may take to arrive.
STALE_AFTER: Final = COMMAND_TIMEOUT * 0.75

_WROTE: Final = frozenset((b"stored", b"known"))


class Appender:
    """Stores events, and knows Redis's clock."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.offset_ms: float | None = None  # Redis's clock less our monotonic one

    def append(
        self, events: Sequence[Event], ends: int, key: str | None, digest: bytes, trace: str | None
    ) -> list[int]:
        """Store events as ``Log.append`` says. ends: how many of the last of them are end markers."""
        client = self._client
        numbers: dict[str, int] = {}  # of the channels, in the order in which the script is given them
        body: list[Argument] = []
        for event in events:
            number = numbers.setdefault(event.channel, len(numbers) + 1)
            retry = "" if event.retry is None else event.retry
            body += (number, event.data, event.event or "", retry)
        if trace is not None:
            body.append(trace)
        keys = [client.keys.meta, client.keys.events]
        lifetime: Argument = ""
        if key is not None:
            keys.append(client.keys.remembered(key))
            lifetime = int(IDEMPOTENCY_SECONDS * 1000)
        keys += map(client.keys.channel, numbers)
        head = lifetime, digest.hex(), ends, len(numbers), *numbers

        asked = False

        def store(link: Link) -> Any:
            nonlocal asked
            asked = True
            args = [format_id(client.seen), self._deadline(), *head, *body]
            if client.target.confirmed:
                return client.store_on(link, APPEND, keys, args, _WROTE)
            return link.run(APPEND, keys, args)

        try:
            answer = client.call(store)
            if answer[0] == b"late":
                # Redis's clock was set, or our idea of it was wrong. Nothing was stored, and now we know better.
                self.learn_clock(answer[1])
                asked = False
                answer = client.call(store)
        except LogUnavailable as error:
            if not asked or wrote_nothing(error.__cause__):
                error.stored = "no"
            raise
        self.learn_clock(answer[1])
        if answer[0] == b"late":
            message = "Redis came to the request too late; nothing was stored"
            raise LogUnavailable(message, RETRY_AFTER, stored="no")
        if answer[0] == b"conflict":
            raise IdempotencyConflict("this idempotency key came with another content before")
        if answer[0] == b"closed":
            raise ChannelClosed(answer[2].decode())
        first = position_of(answer[2])
        positions = list(range(first, first + int(answer[3])))
        client.holds(positions[-1])
        return positions

    def learn_clock(self, redis_ms: int) -> None:
        """Note what Redis's clock said just now."""
        # Low by the time that the answer took: so deadlines come too soon rather than too late.
        self.offset_ms = redis_ms - time.monotonic() * 1000

    def _deadline(self) -> int:
        """By Redis's clock, in unix ms; 0 as long as we do not know that."""
        if self.offset_ms is None:
            return 0
        return int((time.monotonic() + STALE_AFTER) * 1000 + self.offset_ms)
