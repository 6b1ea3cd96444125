"""Retention, as one worker applies it: a bite of trimming now and then, and what counts while the setting changes."""

from __future__ import annotations

import logging
import threading
import time

from sse.log import Log, LogUnavailable
from sse.runtime import offload
from sse.settings import Settings

logger = logging.getLogger("headwater.hub")

TRIM_INTERVAL = 1.0  # seconds between two looks at retention when there is nothing to trim
BITE_PAUSE = 0.005  # seconds between two bites, in which publishers have the write lock

# A retention that was changed is trimmed by after this long (seconds): by then all workers know it. One that did not
# know that less is kept would not look for a gap, and its streams would miss events unknowingly (`Tailer._after_gap`).
RETENTION_DELAY = 3.0


class Retention:
    """What a log keeps. Only the hub's keeper calls :meth:`apply`."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        #: events and seconds that the log trims by
        self.applied = settings.sse_retain_events, settings.sse_retain_seconds
        self._changed_at = 0.0
        self._trim_at = 0.0

    def least(self) -> tuple[int, float]:
        """The fewest events and seconds that any worker may trim by now."""
        settings, applied = self._settings, self.applied
        return min(settings.sse_retain_events, applied[0]), min(settings.sse_retain_seconds, applied[1])

    def apply(self, stop: threading.Event) -> None:
        """Trim what is too old or too much, unless that was done a moment ago; given up when ``stop`` is set."""
        if time.monotonic() < self._trim_at:
            return
        self._follow_settings()
        try:
            while offload(self._log.trim) and not stop.is_set():
                time.sleep(BITE_PAUSE)
        except LogUnavailable:
            pass  # the tailer says so, and publishers are told
        except Exception:
            logger.exception("trimming failed")
        self._trim_at = time.monotonic() + TRIM_INTERVAL

    def _follow_settings(self) -> None:
        wanted = self._settings.sse_retain_events, self._settings.sse_retain_seconds
        now = time.monotonic()
        if wanted == self.applied:
            self._changed_at = 0.0
        elif not self._changed_at:
            self._changed_at = now
        elif now - self._changed_at >= RETENTION_DELAY:
            self._log.retain(*wanted)
            self.applied = wanted
