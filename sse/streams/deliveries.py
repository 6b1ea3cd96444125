"""What became of a traced event: one log line for each trace and pass over a group, by the worker that delivered it.

A publish whose trace is sampled begins in some worker and ends in all that have streams for it. The log of events
carries its :class:`~sse.events.trace.Trace`; here it meets the groups that the events are given to. Nothing is done
for events without one: no group has a trace then, and that is the only thing that a pass looks at.

Anybody may set the sampled flag, a public publisher for each of its events. So there are limits on what a worker keeps
and on the lines that it writes (threat: a log, and a disk, that are filled from outside).
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from ..events.model import SEQUENCE_BITS, Frame, format_id
from ..events.trace import Trace
from ..runtime.lines import Line
from .group import Group
from .window import matches

logger = logging.getLogger("headwater.delivery")

# Traces that are kept at once: whose events have not all been read, and for each group, whose events wait for a pass.
MOST_TRACES: Final = 100

_position = itemgetter(0)  # of a frame


class Delivered(NamedTuple):
    """Events of one trace that a pass has written. began, ended: unix time, seconds."""

    trace: Trace
    frames: Sequence[Frame]
    streams: int
    began: float
    ended: float

    @property
    def channels(self) -> str:
        return ",".join(sorted({frame.channel for frame in self.frames}))


class Deliveries:
    """See the module's text. One per hub, called under its lock or in its event loop.

    limit: asked for the lines per second, which may change; 0 = none. on_delivered: told of all, whether or not there
    is a line.
    """

    def __init__(self, limit: Callable[[], int], on_delivered: Callable[[Delivered], None] | None = None) -> None:
        self._on_delivered = on_delivered
        self.reading: list[Trace] = []  # events of these are still to be read from the log
        self._limit = limit
        self._second = float("-inf")  # when the present second began, monotonic
        self._lines = 0
        self._suppressed = 0

    def took(self, traces: Iterable[Trace]) -> None:
        """The log has handed over events that begin these traces."""
        if not self._limit() and self._on_delivered is None:
            return
        self.reading += traces
        self._suppressed += len(self.reading[MOST_TRACES:])
        del self.reading[MOST_TRACES:]

    def mark(self, frames: Sequence[Frame], by_channel: Mapping[str, Iterable[Group]]) -> None:
        """Note the traces of these frames in the groups that they were given to."""
        for trace in self.reading:
            for frame in _of(trace, frames):
                for group in by_channel.get(frame.channel, ()):
                    if (group.pending or group.waiters) and matches(frame, group.subscription.types):
                        self._note(group, trace)
        through = frames[-1].position
        self.reading = [trace for trace in self.reading if trace.last > through]

    def _note(self, group: Group, trace: Trace) -> None:
        if group.traced and group.traced[-1] is trace:
            return
        if len(group.traced) < MOST_TRACES:
            group.traced.append(trace)
        else:
            self._suppressed += 1

    def written(self, group: Group, frames: Sequence[Frame], streams: int, took: float, ended: float) -> None:
        """These frames were written to so many of a group's streams. ``took``: seconds; ``ended``: unix time."""
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
                logger.exception("a delivery's span could not be made")  # and streams must not suffer from it
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
        """Begin a new second if one is over, and say how many lines the last one has left out. To be called each
        second, so that this is said even when nothing more comes."""
        now = time.monotonic()
        if now - self._second < 1:
            return
        self._second = now
        self._lines = 0
        if self._suppressed:
            suppressed, self._suppressed = self._suppressed, 0
            if self._limit():
                logger.info(Line("deliveries", suppressed=suppressed))


def _of(trace: Trace, frames: Sequence[Frame]) -> Sequence[Frame]:
    """The frames of a trace, out of some in order."""
    begin = bisect_left(frames, trace.first, key=_position)
    return frames[begin : bisect_right(frames, trace.last, begin, key=_position)]
