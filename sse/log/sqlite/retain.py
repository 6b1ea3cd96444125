"""Retention in a SQLite log: what is due by the rules, removed in bites.

Nothing here reads the log to find what is due. ``channels`` says, for each channel, where its oldest record is and how
many it has, indexed by *class*: the number of the rule that is for the channel. So the channels that have something due
are found by a seek, and the records by another in the index of the channel.

Only the count of the channels without a rule is over all of these together, oldest first. They are found by walking the
log from the oldest record of such a channel on: each record is passed once in its life, or a few times.

Without rules no channel has a class, and the oldest rows of the log go.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from ...events.model import MAX_POSITION
from ..base import GONE_MOST, GONE_SECONDS, TRIM_BITE, RetainRule
from ..rules import NO_RULE, Rules, expired, settled
from .channels import catch_up, trim
from .file import patiently
from .read import all_rows

# Channels that are given their class in one transaction, and for how many seconds that goes on in one bite.
_CLASS_BITE: Final = 1000
_CLASS_SECONDS: Final = 0.5

# Records looked at for the count of the channels without a rule: in one query, and in one bite.
_WALK_PAGE: Final = 1000
_WALK_MOST: Final = 50_000

_TOTAL: Final = "SELECT ifnull(sum(records), 0) FROM channels"
_TOTAL_OF_CLASS: Final = "SELECT ifnull(sum(records), 0) FROM channels WHERE class = ?"
_OLDEST: Final = "SELECT position FROM events ORDER BY position LIMIT ?"

_OLD: Final = "SELECT channel FROM channels WHERE class = ? AND first < ? ORDER BY first LIMIT ?"
_MANY: Final = """
    SELECT channel, surplus FROM (
        SELECT channel, first, records - ? - EXISTS (SELECT 1 FROM closed WHERE closed.channel = channels.channel)
            AS surplus
        FROM channels WHERE class = ? AND records > ?)
    WHERE surplus > 0 AND first < ? LIMIT ?
"""
_OF_CHANNEL: Final = (
    "SELECT position FROM events INDEXED BY events_by_channel WHERE channel = ? AND position < ?"
    " ORDER BY position LIMIT ?"
)
_FIRST: Final = "SELECT min(first) FROM channels WHERE class = ?"
_WALK: Final = f"SELECT position, channel FROM events WHERE position >= ? ORDER BY position LIMIT {_WALK_PAGE}"

_CLASSES: Final = "SELECT value FROM meta WHERE name = 'classes'"
_SET_CLASSES: Final = "UPDATE meta SET value = ? WHERE name = 'classes'"
_NAMES: Final = f"SELECT channel, class FROM channels WHERE channel > ? ORDER BY channel LIMIT {_CLASS_BITE}"
_NEW_NAMES: Final = f"SELECT channel, class FROM channels WHERE class IS NULL LIMIT {_CLASS_BITE}"
_CLASS: Final = "UPDATE channels SET class = ? WHERE channel = ?"

_OLD_MARKS: Final = "SELECT channel, gone FROM channels WHERE records = 0 AND gone < ? ORDER BY gone LIMIT ?"
_MARKS: Final = "SELECT count(*) FROM channels WHERE records = 0"
_FORGET: Final = "DELETE FROM channels WHERE channel = ? AND records = 0"
_COARSE: Final = "UPDATE meta SET value = max(value, ?) WHERE name = 'coarse'"


@lru_cache(maxsize=8)
def _at(positions: int) -> str:
    return f"position IN ({', '.join('?' * positions)})"


class Retention:
    """What a log keeps. One thread at a time uses it, but any may call ``apply``."""

    def __init__(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        self.apply(events, seconds, rules)
        self._classed = 0, ""  # by which rules channels are being given their class, and up to which name

    def apply(self, events: int, seconds: float, rules: Sequence[RetainRule]) -> None:
        """Change what is kept, from the next bite on."""
        self._limits = events, seconds, Rules(rules)

    def bite(self, database: sqlite3.Connection, now: int) -> int:
        """Remove what is due, at most a bite; return how many rows. now: unix ms. Raises ``sqlite3.Error``."""
        events, seconds, rules = self._limits
        catch_up(database)
        if not rules:
            return self._oldest(database, events, expired(now, seconds))
        if not self._classify(database, rules):
            return 0
        due: set[int] = set()
        for positions in _due(database, events, seconds, rules, now):
            due.update(positions)
            if len(due) >= TRIM_BITE:
                break
        bite = sorted(due)[:TRIM_BITE]
        return self._trim(database, _at(len(bite)), bite) if bite else 0

    def _oldest(self, database: sqlite3.Connection, events: int, before: int) -> int:
        """Remove the oldest rows of the log."""
        surplus = database.execute(_TOTAL).fetchone()[0] - events
        oldest = [position for (position,) in all_rows(database, _OLDEST, (TRIM_BITE,))]
        bite = [position for n, position in enumerate(oldest) if n < surplus or position < before]
        return self._trim(database, "position <= ?", bite[-1:]) if bite else 0

    @staticmethod
    def _trim(database: sqlite3.Connection, which: str, values: Sequence[int]) -> int:
        patiently(database.execute, "BEGIN IMMEDIATE")
        removed = trim(database, which, values)
        database.execute("COMMIT")
        return removed

    def _classify(self, database: sqlite3.Connection, rules: Rules) -> bool:
        """Give channels their class; return False if more time is needed."""
        patterns = repr([rule.pattern for rule in rules.rules]).encode()
        wanted = int.from_bytes(hashlib.sha256(patterns).digest()[:7], "big")
        until = time.monotonic() + _CLASS_SECONDS
        if database.execute(_CLASSES).fetchone()[0] != wanted:
            name = self._classed[1] if self._classed[0] == wanted else ""
            while found := all_rows(database, _NAMES, (name,)):
                self._class(database, rules, found)
                name = found[-1][0]
                self._classed = wanted, name
                if time.monotonic() > until:
                    return False
            self._classed = 0, ""
            patiently(database.execute, _SET_CLASSES, (wanted,))
        while found := all_rows(database, _NEW_NAMES, ()):
            self._class(database, rules, found)
            if time.monotonic() > until:
                return False
        return True

    @staticmethod
    def _class(database: sqlite3.Connection, rules: Rules, found: Sequence[tuple[str, int | None]]) -> None:
        classes = [(rules.find(channel), channel) for channel, _ in found]
        changed = [new for new, (_, old) in zip(classes, found, strict=True) if new[0] != old]
        if changed:
            patiently(database.execute, "BEGIN IMMEDIATE")
            database.executemany(_CLASS, changed)
            database.execute("COMMIT")

    @staticmethod
    def forget(database: sqlite3.Connection, now: int) -> int:
        """Forget a bite of what was trimmed of channels that have nothing left; return of how many. now: unix ms."""
        surplus = database.execute(_MARKS).fetchone()[0] - GONE_MOST
        found = all_rows(database, _OLD_MARKS, (expired(now, GONE_SECONDS), TRIM_BITE))
        if len(found) < min(surplus, TRIM_BITE):
            found = all_rows(database, _OLD_MARKS, (MAX_POSITION, min(surplus, TRIM_BITE)))
        if found:
            patiently(database.execute, "BEGIN IMMEDIATE")
            database.execute(_COARSE, (found[-1][1],))
            database.executemany(_FORGET, ((channel,) for channel, _ in found))
            database.execute("COMMIT")
        return len(found)


def _due(
    database: sqlite3.Connection, events: int, seconds: float, rules: Rules, now: int
) -> Iterator[Iterable[int]]:
    """Find positions that are due, each channel's oldest first; at most a bite at once, some perhaps twice."""
    limits = [*enumerate(rules.rules), (NO_RULE, RetainRule("*", None, seconds))]
    for number, (_, most, age) in limits:
        if age is not None:
            before = expired(now, age)
            for (channel,) in all_rows(database, _OLD, (number, before, TRIM_BITE)):
                yield _of_channel(database, channel, before, TRIM_BITE)
        if most is not None:
            before = settled(now)
            for channel, surplus in all_rows(database, _MANY, (most, number, most, before, TRIM_BITE)):
                yield _of_channel(database, channel, before, min(surplus, TRIM_BITE))
    (total,) = database.execute(_TOTAL_OF_CLASS, (NO_RULE,)).fetchone()
    if total > events:
        yield _oldest_of_the_rest(database, rules, min(total - events, TRIM_BITE))


def _of_channel(database: sqlite3.Connection, channel: str, before: int, most: int) -> list[int]:
    return [position for (position,) in all_rows(database, _OF_CHANNEL, (channel, before, most))]


def _oldest_of_the_rest(database: sqlite3.Connection, rules: Rules, most: int) -> list[int]:
    """Find the oldest records of the channels without a rule."""
    found: list[int] = []
    ruled: dict[str, bool] = {}
    (position,) = database.execute(_FIRST, (NO_RULE,)).fetchone()
    walked = 0
    while position is not None and len(found) < most and walked < _WALK_MOST:
        page = all_rows(database, _WALK, (position,))
        walked += len(page)
        for position, channel in page:
            if channel not in ruled:
                ruled[channel] = rules.find(channel) != NO_RULE
            if not ruled[channel]:
                found.append(position)
        position = page[-1][0] + 1 if len(page) == _WALK_PAGE else None
    return found[:most]
