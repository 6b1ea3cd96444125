"""Retention, as one worker applies it: it trims the log in small steps, and delays a change of the settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from ..log import Log, LogUnavailable
from ..log.base import RULE_GRACE, TRIM_BITE
from ..log.retain import parse_rules
from ..runtime.cooperation import offload
from ..settings import Settings

TRIM_INTERVAL = 1.0  # seconds until the next step when a step has trimmed all there was
TRIM_PAUSE = 0.005  # seconds between two steps when there is more; publishers have the write lock meanwhile

# Seconds from a change of the setting until the log is trimmed by it: by then all workers know it. A worker that missed
# a lower value would not look for a gap, and its streams would miss events unknowingly (`Tailer._after_gap`).
RETENTION_DELAY = 3.0


class _Kept(NamedTuple):
    """What the settings say is kept: of all channels together, and by rules."""

    events: int
    seconds: float
    rules: tuple[str, ...]

    @classmethod
    def by(cls, settings: Settings) -> _Kept:
        return cls(settings.sse_retain_events, settings.sse_retain_seconds, settings.sse_retain)


class Retention:
    """What a log keeps: it is told so at once. Only one of the hub's threads calls :meth:`trim`."""

    def __init__(self, log: Log, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._settings = settings
        self._clock = clock
        #: what the log trims by
        self.applied = self._wanted = _Kept.by(settings)
        self._apply()
        self._changed_at = 0.0  # when the settings last changed to what is wanted

    def least(self) -> tuple[int, float]:
        """Return the fewest events and seconds that any worker may trim by now."""
        settings, applied = self._settings, self.applied
        seconds = min(settings.sse_retain_seconds, applied.seconds)
        for rules in (settings.sse_retain, applied.rules):
            if rules:
                seconds = min(seconds, _shortest(rules))
        return min(settings.sse_retain_events, applied.events), seconds

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
        wanted = _Kept.by(self._settings)
        now = self._clock()
        if wanted != self._wanted:
            self._wanted, self._changed_at = wanted, now  # each change begins the delay again
        if wanted != self.applied and now - self._changed_at >= RETENTION_DELAY:
            self.applied = wanted
            self._apply()

    def _apply(self) -> None:
        events, seconds, rules = self.applied
        self._log.retain(events, seconds, parse_rules(rules))


@lru_cache(maxsize=8)
def _shortest(rules: tuple[str, ...]) -> float:
    """Return the fewest seconds by which a rule may trim; a count alone may, once its grace is over."""
    grace = RULE_GRACE * 1.5  # a follower looks for a gap after half of it, while a quiet log reports each second
    found = [rule.seconds for rule in parse_rules(rules) if rule.seconds is not None]
    return min(found + [grace for rule in parse_rules(rules) if rule.events is not None])
