"""Listening to the log itself, as a stream of the service would: from a cursor on, told of what is missing."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from ..sse.events.markers import is_marker
from ..sse.events.model import format_id, make_position, parse_since
from ..sse.events.patterns import is_pattern, matcher
from ..sse.log import Bounds, Log, LogUnavailable
from ..sse.log.base import Batch
from .messages import CLOSED, END, RESET, Message

# Seconds until a log that does not answer is asked again, doubling to the most.
FIRST_DELAY, MOST_DELAY = 0.2, 5.0


def follow(
    log: Log, channels: Sequence[str], types: Sequence[str], since: str | None, say: Callable[[str], None]
) -> Iterator[Message]:
    """Yield the events of these channels (names and patterns) after ``since``; None: after now.

    Ends when all channels are closed; with a pattern never. say: tells of what a person should know.
    """
    wanted, kinds = matcher(channels), frozenset(types)
    names = frozenset() if any(map(is_pattern, channels)) else frozenset(channels)
    position = None if since is None else parse_since(since)
    delay, away = FIRST_DELAY, False
    while True:
        try:
            bounds = log.bounds()
            position, reason = _begin(log, bounds, channels, position)
            if reason is not None:
                yield _reset(reason, since or "", bounds, position)
            considered = bounds.trimmed
            ended = {name for name, at in log.closed(names).items() if at <= position} if names else set()
            if names and ended == names:
                say(CLOSED)
                return
            for batch in log.follow(position, threading.Event()):
                if away:
                    say("the log answers again")
                    away = False
                delay = FIRST_DELAY
                if batch and not (isinstance(batch, Batch) and batch.whole):
                    bounds = log.bounds()
                    if bounds.trimmed > max(position, considered):  # since the last look, before it was read
                        if log.gone(channels, position) > considered:
                            yield _reset("expired", format_id(position), bounds, position)
                        considered = bounds.trimmed
                for record in batch:
                    position, since = record.position, format_id(record.position)
                    if wanted(record.channel) and (not kinds or record.event in kinds or is_marker(record.event)):
                        yield Message(since, record.channel, record.event, record.data)
                    if names and is_marker(record.event) and record.channel in names:
                        # An end; or an erasure, which opens the channel again.
                        (ended.add if record.event == END else ended.discard)(record.channel)
                        if ended == names:
                            return
        except LogUnavailable as error:
            if not away:
                say(f"{error}; trying again")
            away = True
        time.sleep(delay * random.uniform(0.75, 1.25))
        delay = min(delay * 2, MOST_DELAY)


def _begin(log: Log, bounds: Bounds, channels: Sequence[str], position: int | None) -> tuple[int, str | None]:
    """Return where to begin, and the reason for a reset if what lies between is not there to be told."""
    if position is None:
        return bounds.latest, None
    if position > max(bounds.latest, make_position(time.time_ns() // 1_000_000 + 1)):
        return bounds.trimmed, "unknown"
    if position <= 0:
        return 0, None
    if bounds.complete and position < bounds.began:
        return position, "before-log"
    if position < bounds.lost or (position < bounds.trimmed and log.gone(channels, position)):
        return position, "expired"
    return position, None


def _reset(reason: str, requested: str, bounds: Bounds, position: int) -> Message:
    """What a stream would be sent (``sse.events.wire.reset_block``)."""
    detail = {
        "reason": reason,
        "requested": requested,
        "oldest": None if bounds.oldest is None else format_id(bounds.oldest),
        "latest": format_id(bounds.latest),
    }
    return Message(format_id(position), None, RESET, json.dumps(detail, separators=(",", ":")))
