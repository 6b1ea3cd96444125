"""Writes the end of a run: one record ``run`` in its channel, with which the channel is closed."""

from __future__ import annotations

import enum
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from ..events.digest import digest_of
from ..events.markers import is_marker, own_event
from ..events.model import RUN, Event
from ..log import ChannelClosed, IdempotencyConflict, Log
from .book import Claim
from .states import Outcome, State

logger = logging.getLogger("headwater.runs")

# One page of what a run has stored, when another worker looks for its end.
_PAGE_EVENTS: Final = 1000
_PAGE_CHARS: Final = 1024 * 1024


class Written(enum.Enum):
    """What has become of an end: it is in the log; the run has another one; the channel is closed and takes none."""

    OURS = enum.auto()
    ANOTHER = enum.auto()
    REFUSED = enum.auto()


def write_end(log: Log, claim: Claim, outcome: Outcome, events: int) -> Written:
    """Append the end, unless the run has one. If it fails, call it again: it is stored once. Raises LogUnavailable."""
    end = _end_event(claim, outcome, events)
    close = (claim.channel,) if claim.closes else ()
    try:
        log.append([end], key=f"run-end:{claim.run}", digest=digest_of([end], close), close=close)
    except IdempotencyConflict:
        return Written.ANOTHER
    except ChannelClosed:
        logger.warning("%s has no end in its channel, because that was closed before", claim.run)
        return Written.REFUSED
    return Written.OURS


def _end_event(claim: Claim, outcome: Outcome, events: int) -> Event:
    data: dict[str, Any] = {"run": claim.run, "state": outcome.state, "events": events}
    if outcome.usage is not None:
        data["usage"] = outcome.usage
    if outcome.error is not None:
        data["error"] = outcome.error
    return own_event(claim.channel, RUN, json.dumps(data, separators=(",", ":")))


def find_end(log: Log, claim: Claim, after: int, waiting: Callable[..., Any]) -> tuple[State | None, int]:
    """Look in the log for the end of a run; return its state and events, or None and the events that it stored.

    Other publishers' events in the channel since the start count, too. after: where the run began; waiting: runs a
    function that waits for the log. Raises LogUnavailable.
    """
    events = 0
    while True:
        page = waiting(log.read, (claim.channel,), after, _PAGE_EVENTS, _PAGE_CHARS)
        for record in page:
            if record.event == RUN:
                data = json.loads(record.data)
                if data["run"] == claim.run:
                    return State(data["state"]), data["events"]
            events += not is_marker(record.event)
        if not page:
            return None, events
        after = page[-1].position
