"""The event-loop lag probe: it sleeps for a known time and measures how much longer the sleep took.

Under gevent it is a greenlet, and measures how long something kept the loop busy, such as a view that computes or
blocks in C code. With threads it measures how long its thread waited for the interpreter lock and a processor.
"""

from __future__ import annotations

import threading
import time
from typing import Final

# Seconds of one sleep. A stall is measured from the end of a sleep, so every stall of more than 100 ms shows. Ten
# wake-ups a second cost less than 0.1 % of a core.
INTERVAL: Final = 0.1

# Seconds for which the longest lag is remembered, in steps of a second: longer than a probe's usual period.
REMEMBER: Final = 10


class LagWindow:
    """Computes the lag from samples. It is pure; times are monotonic seconds."""

    def __init__(self) -> None:
        self._last = 0.0
        self._due: float | None = None
        self._longest = [0.0] * REMEMBER
        self._seconds = [-1] * REMEMBER

    def sleeping(self, until: float) -> None:
        """Note the start of a sleep that should end at ``until``."""
        self._due = until

    def woke(self, now: float) -> None:
        """Note the end of the sleep."""
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
        """Return the lag of the last sleep, or of the present one if that is overdue by more; seconds."""
        return max(self._last, now - self._due if self._due is not None else 0.0)

    def longest(self, now: float) -> float:
        """Return the longest lag of the last ten seconds."""
        oldest = int(now) - REMEMBER
        recent = (lag for second, lag in zip(self._seconds, self._longest, strict=True) if second > oldest)
        return max(self.current(now), *recent, 0.0)


class LagProbe:
    """Samples the lag; ``run`` is its thread (a greenlet under gevent)."""

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
