"""Retention, as one worker applies it: it trims the log in small steps, and delays a change of the setting."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..log import Log, LogUnavailable
from ..log.base import TRIM_BITE
from ..runtime.cooperation import offload
from ..settings import Settings

TRIM_INTERVAL = 1.0  # seconds until the next step when a step has trimmed all there was
TRIM_PAUSE = 0.005  # seconds between two steps when there is more; publishers have the write lock meanwhile

# Seconds from a change of the setting until the log is trimmed by it: by then all workers know it. A worker that missed
# a lower value would not look for a gap, and its streams would miss events unknowingly (`Tailer._after_gap`).
RETENTION_DELAY = 3.0


class Retention:
    """What a log keeps. Only one of the hub's threads calls :meth:`trim`."""

    def __init__(self, log: Log, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._settings = settings
        self._clock = clock
        #: events and seconds that the log trims by
        self.applied = self._wanted = settings.sse_retain_events, settings.sse_retain_seconds
        self._changed_at = 0.0  # when the settings last changed to what is wanted

    def least(self) -> tuple[int, float]:
        """Return the fewest events and seconds that any worker may trim by now."""
        settings, applied = self._settings, self.applied
        return min(settings.sse_retain_events, applied[0]), min(settings.sse_retain_seconds, applied[1])

    def trim(self) -> float:
        """Trim a bounded number of events; return the seconds until the next step is due.

        Only a full step is followed by another at once: under steady publishing there is always something to trim.
        """
        self._follow_settings()
        try:
            removed = offload(self._log.trim)
        except LogUnavailable:
            return TRIM_INTERVAL  # the tailer logs it, and publishers are told
        return TRIM_INTERVAL if removed < TRIM_BITE else TRIM_PAUSE

    def _follow_settings(self) -> None:
        wanted = self._settings.sse_retain_events, self._settings.sse_retain_seconds
        now = self._clock()
        if wanted != self._wanted:
            self._wanted, self._changed_at = wanted, now  # each change begins the delay again
        if wanted != self.applied and now - self._changed_at >= RETENTION_DELAY:
            self._log.retain(*wanted)
            self.applied = wanted
