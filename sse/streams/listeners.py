"""How many streams listen to which channels, over all workers.

Each worker puts a note with its own counts into the log, by selector, and lets it expire when it is gone.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, Final
from uuid import uuid4

from ..events.patterns import is_reserved
from ..log import Log, LogError
from ..runtime.cooperation import offload
from .group import Group
from .index import Index

# The kind of the notes in the log.
NOTE_KIND: Final = "listeners"

# A changed count is in the log after this many seconds at most.
INTERVAL: Final = 5.0
# Without a change, the note is put again after this many seconds.
PROLONG: Final = 8.0
# A worker that is gone no longer counts after this many seconds.
EXPIRY: Final = 15.0


class Listeners:
    """Counts of streams by selector: names and patterns."""

    def __init__(self, selectors: Mapping[str, int]) -> None:
        self.selectors = dict(selectors)
        self._index: Index[str] = Index()
        for selector in self.selectors:
            self._index.add(selector, (selector,))

    def of(self, channel: str) -> int:
        """Return how many streams get a channel's events. (At most one selector of each stream matches.)"""
        return sum(self.selectors[selector] for selector in self._index.of(channel))


def count(groups: Iterable[Group]) -> Counter[str]:
    """Return how many streams of these groups have which selectors, without the service's own channels."""
    counts: Counter[str] = Counter()
    for group in groups:
        for selector in group.subscription.channels:
            if not is_reserved(selector):
                counts[selector] += group.members
    return counts


class Counting:
    """One worker's note. lock: the hub's, which guards the groups."""

    def __init__(self, log: Log, groups: Iterable[Group], lock: AbstractContextManager[bool]) -> None:
        self._log = log
        self._groups = groups
        self._lock = lock
        self._name = uuid4().hex
        self._counts: dict[str, int] = {}
        self._put_at = float("-inf")  # monotonic seconds

    def own(self) -> Counter[str]:
        """Return this worker's counts."""
        with self._lock:
            return count(self._groups)

    def put(self) -> float:
        """Put the note, if it is due; return the seconds until the next look. A duty: it may wait for the log."""
        counts, now = self.own(), time.monotonic()
        if counts != self._counts or (counts and now - self._put_at >= PROLONG):
            try:
                if counts:
                    offload(self._put, json.dumps(counts, separators=(",", ":")))
                else:
                    offload(self._log.drop_note, NOTE_KIND, self._name)
            except LogError:
                return INTERVAL  # the tailer logs it
            self._counts, self._put_at = counts, now
        return INTERVAL

    def _put(self, text: str) -> None:
        self._log.put_note(NOTE_KIND, self._name, text, EXPIRY)

    def drop(self) -> None:
        """Take the note back: the worker stops."""
        if self._counts:
            with suppress(LogError):  # it expires
                self._log.drop_note(NOTE_KIND, self._name)

    def all(self) -> Listeners:
        """Return the counts of all workers. May wait for the log. Raises LogUnavailable."""
        total = self.own()
        for name, text in offload(self._log.notes, NOTE_KIND).items():
            if name != self._name:
                total.update(_counts_in(text))
        return Listeners(total)


def _counts_in(text: str) -> dict[str, int]:
    """Read a note, which another version of the service may have written."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {selector: number for selector, number in found.items() if type(number) is int}
