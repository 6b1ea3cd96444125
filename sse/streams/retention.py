"""Retention, as one worker applies it: a bite of trimming now and then, and what counts while the setting changes."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..log import Log, LogUnavailable
from ..log.base import TRIM_BITE
from ..runtime.cooperation import offload
from ..settings import Settings

TRIM_INTERVAL = 1.0  # seconds between two looks at retention when there is nothing more to trim
BITE_PAUSE = 0.005  # seconds between two bites, in which publishers have the write lock

# A retention that was changed is trimmed by after this long (seconds): by then all workers know it. One that did not
# know that less is kept would not look for a gap, and its streams would miss events unknowingly (`Tailer._after_gap`).
RETENTION_DELAY = 3.0


class Retention:
    """What a log keeps. Only one thread of the hub calls :meth:`bite`."""

    def __init__(self, log: Log, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._settings = settings
        self._clock = clock
        #: events and seconds that the log trims by
        self.applied = self._wanted = settings.sse_retain_events, settings.sse_retain_seconds
        self._changed_at = 0.0  # when the settings last became what is wanted

    def least(self) -> tuple[int, float]:
        """The fewest events and seconds that any worker may trim by now."""
        settings, applied = self._settings, self.applied
        return min(settings.sse_retain_events, applied[0]), min(settings.sse_retain_seconds, applied[1])

    def bite(self) -> float:
        """Trim one bite of what is too old or too much; returns the seconds until the next one is due.

        A short bite is the last one for now: under steady publishing there always is something to trim, and waiting
        until there is nothing would never end.
        """
        self._follow_settings()
        try:
            removed = offload(self._log.trim)
        except LogUnavailable:
            return TRIM_INTERVAL  # the tailer says so, and publishers are told
        return TRIM_INTERVAL if removed < TRIM_BITE else BITE_PAUSE

    def _follow_settings(self) -> None:
        wanted = self._settings.sse_retain_events, self._settings.sse_retain_seconds
        now = self._clock()
        if wanted != self._wanted:
            self._wanted, self._changed_at = wanted, now  # each change is waited for
        if wanted != self.applied and now - self._changed_at >= RETENTION_DELAY:
            self._log.retain(*wanted)
            self.applied = wanted
