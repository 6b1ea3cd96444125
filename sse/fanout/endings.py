"""Ends many streams at once: those of a group whose channels are closed, or whose access was taken back.

Ten thousand ends take tenths of a second, so a greenlet of its own does them, and lets the event loop run in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter

from gevent.event import Event as GeventEvent

from ..runtime.cooperation import breathe
from ..streams.group import Group
from ..streams.stream import CloseReason, Stream
from .catchup import CatchUp
from .passes import PASS_SLICE

# Streams that are looked at between two looks at the clock.
CLOCK_EVERY = 16


class Endings:
    """What is to be ended: jobs, done one after the other. A job names streams, some of which may have ended since."""

    def __init__(self, catchup: CatchUp) -> None:
        self._catchup = catchup
        self._jobs: deque[tuple[Iterable[Stream], Callable[[Stream], None]]] = deque()
        self._work = GeventEvent()

    def end_group(self, group: Group) -> None:
        """End a group's live streams: its channels are closed. The others see it when they have caught up."""
        self._add(group.live.copy(), lambda stream: self._catchup.end(stream, CloseReason.ENDED))

    def end_now(self, streams: Iterable[Stream], wanted: Callable[[Stream], bool], reason: CloseReason) -> None:
        """End those of these streams that are wanted, where they are."""

        def end(stream: Stream) -> None:
            if wanted(stream):
                self._catchup.end_now(stream, reason)

        self._add(streams, end)

    def _add(self, streams: Iterable[Stream], end: Callable[[Stream], None]) -> None:
        self._jobs.append((streams, end))
        self._work.set()

    def run(self) -> None:
        """Do one job; wait until there is one."""
        while not self._jobs:
            self._work.clear()
            self._work.wait()
        streams, end = self._jobs.popleft()
        slice_ends = perf_counter() + PASS_SLICE
        for count, stream in enumerate(streams):
            end(stream)
            if count % CLOCK_EVERY == 0 and perf_counter() > slice_ends:
                breathe()
                slice_ends = perf_counter() + PASS_SLICE
