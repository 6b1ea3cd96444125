"""Deliveries of traced events: the worker that delivers one logs one line for each trace and pass over a group.

A publish whose trace is sampled begins in one worker and ends in every worker that has streams for it. The event log
carries its :class:`~sse.events.trace.Trace`; this module notes it in the groups that get the events. Events without a
trace cost nothing here: a pass only looks whether its group has a trace.

Any publisher may set the sampled flag, on each of its events. So the number of traces that a worker keeps is limited,
and so are the lines that it writes (threat: filling the disk with log lines).
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

from ..events.model import SEQUENCE_BITS, format_id
from ..events.trace import Trace
from ..events.wire import Frame
from ..runtime.lines import Line
from .group import Group
from .window import Item, matches

logger = logging.getLogger("headwater.delivery")

# Limit on the traces that have events still to be read; and, for each group, on those with events that wait for a pass.
MOST_TRACES: Final = 100

_position = itemgetter(0)  # an event's

T = TypeVar("T", bound=Item)


class Delivered(NamedTuple):
    """Events of one trace that a pass has written; ``began`` and ``ended`` in unix seconds."""

    trace: Trace
    frames: Sequence[Frame]
    streams: int
    began: float
    ended: float

    @property
    def channels(self) -> str:
        return ",".join(sorted({frame.channel for frame in self.frames}))


class Deliveries:
    """One per hub; called under its lock or in its event loop.

    limit: returns the allowed lines per second, 0 for none; on_delivered: told of each delivery, logged or not.
    """

    def __init__(self, limit: Callable[[], int], on_delivered: Callable[[Delivered], None] | None = None) -> None:
        self._on_delivered = on_delivered
        self.reading: list[Trace] = []  # traces with events still to be read from the log
        self._limit = limit
        self._second = float("-inf")  # when the current second began, monotonic seconds
        self._lines = 0  # written in it
        self._suppressed = 0

    def took(self, traces: Iterable[Trace]) -> None:
        """Keep the traces that begin with events just read from the log."""
        if not self._limit() and self._on_delivered is None:
            return
        self.reading += traces
        self._suppressed += len(self.reading[MOST_TRACES:])
        del self.reading[MOST_TRACES:]

    def mark(self, items: Sequence[Item], groups_of: Callable[[str], Iterable[Group]]) -> None:
        """Note the traces of these events in the groups that got them. groups_of: returns a channel's groups."""
        for trace in self.reading:
            for item in _of(trace, items):
                for group in groups_of(item.channel):
                    if (group.pending or group.waiters) and matches(item, group.subscription.types):
                        self._note(group, trace)
        through = items[-1].position
        self.reading = [trace for trace in self.reading if trace.last > through]

    def _note(self, group: Group, trace: Trace) -> None:
        if group.traced and group.traced[-1] is trace:
            return
        if len(group.traced) < MOST_TRACES:
            group.traced.append(trace)
        else:
            self._suppressed += 1

    def written(self, group: Group, frames: Sequence[Frame], streams: int, took: float, ended: float) -> None:
        """Report the traces of frames that were written to a group's streams.

        streams: how many; took: for how long, seconds; ended: when, unix seconds.
        """
        through = frames[-1].position
        traces, group.traced = group.traced, [trace for trace in group.traced if trace.last > through]
        for trace in traces:
            found = _of(trace, frames)
            if found and streams:
                self._tell(Delivered(trace, found, streams, ended - took, ended))

    def _tell(self, delivered: Delivered) -> None:
        if self._on_delivered is not None:
            try:
                self._on_delivered(delivered)
            except Exception:
                logger.exception("a delivery's span could not be made")  # streams must not suffer from it
        self.flush()
        if self._lines >= self._limit():
            self._suppressed += 1
            return
        self._lines += 1
        first = delivered.frames[0]
        logger.info(
            Line(
                "delivery",
                trace=delivered.trace.trace_id,
                id=format_id(first.position),
                events=len(delivered.frames),
                channels=delivered.channels,
                streams=delivered.streams,
                latency=round(delivered.ended - (first.position >> SEQUENCE_BITS) / 1000, 4),
            )
        )

    def flush(self) -> None:
        """Begin a new second if one is over, and log how many lines the last one left out.

        To be called each second, so that the number is logged even if no more deliveries follow.
        """
        now = time.monotonic()
        if now - self._second < 1:
            return
        self._second = now
        self._lines = 0
        if self._suppressed:
            suppressed, self._suppressed = self._suppressed, 0
            if self._limit():
                logger.info(Line("deliveries", suppressed=suppressed))


def _of(trace: Trace, items: Sequence[T]) -> Sequence[T]:
    """Return those of some events in order that belong to a trace."""
    begin = bisect_left(items, trace.first, key=_position)
    return items[begin : bisect_right(items, trace.last, begin, key=_position)]
