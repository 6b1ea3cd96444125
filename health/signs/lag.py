"""The event-loop lag probe: it sleeps a known time and measures by how much it overslept.

Under gevent it is a greenlet, and what it measures is how long the loop was kept from switching: a view that
computes, or blocks in C code, without yielding. In a process with threads the same figure says how long this
thread waited for the interpreter lock and a processor.
"""

from __future__ import annotations

import threading
import time
from typing import Final

# How long one sleep takes. A stall is seen as far as it reaches beyond the end of a sleep, so a stall of
# 100 ms or more is always seen; ten wake-ups a second cost less than 0.1 % of a core.
INTERVAL: Final = 0.1

# The longest lag is remembered this long, in one-second steps: longer than a probe's usual period.
REMEMBER: Final = 10


class LagWindow:
    """The pure part: what the samples say at a given moment. All times in monotonic seconds."""

    def __init__(self) -> None:
        self._last = 0.0
        self._due: float | None = None
        self._longest = [0.0] * REMEMBER
        self._seconds = [-1] * REMEMBER

    def sleeping(self, until: float) -> None:
        """A sleep began that should end at ``until``."""
        self._due = until

    def woke(self, now: float) -> None:
        """The sleep ended."""
        if self._due is None:
            return
        self._last = max(now - self._due, 0.0)
        self._due = None
        place = int(now) % REMEMBER
        if self._seconds[place] != int(now):
            self._seconds[place] = int(now)
            self._longest[place] = 0.0
        self._longest[place] = max(self._longest[place], self._last)

    def current(self, now: float) -> float:
        """The lag now, s: that of the last sleep, or by how much the present one is overdue if that is
        more."""
        return max(self._last, now - self._due if self._due is not None else 0.0)

    def longest(self, now: float) -> float:
        """The longest lag of the last ten seconds."""
        oldest = int(now) - REMEMBER
        recent = (lag for second, lag in zip(self._seconds, self._longest, strict=True) if second > oldest)
        return max(self.current(now), *recent, 0.0)


class LagProbe:
    """Samples the lag in a thread (a greenlet under gevent) until it is stopped."""

    def __init__(self, stop: threading.Event) -> None:
        self._window = LagWindow()
        self._stop = stop

    def run(self) -> None:
        while not self._stop.is_set():
            self._window.sleeping(time.monotonic() + INTERVAL)
            self._stop.wait(INTERVAL)
            self._window.woke(time.monotonic())

    def current(self) -> float:
        return self._window.current(time.monotonic())

    def longest(self) -> float:
        return self._window.longest(time.monotonic())
