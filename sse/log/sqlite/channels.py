"""What a SQLite log knows of each channel: what it holds, what was trimmed of it, and whether it is closed.

Publishers do not keep count, which would cost each a page of the write-ahead log. The table ``channels`` is brought up
to date from the log instead (``count``), by whoever needs it: once a second by the worker that does the upkeep, and by
one that lists channels. Each position is counted once, in small transactions that read nothing while they hold the
write lock. Trimming and erasing change the table in their own transactions.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final

from ...events.markers import MARKERS
from ...events.patterns import split
from ..base import ChannelInfo
from .file import patiently
from .query import ranges
from .read import all_rows

# Records counted in one transaction, which holds the write lock for as many channels as they have.
COUNT_BITE: Final = 1000

# After this long, counting goes on another time.
COUNT_SECONDS: Final = 0.5

#: True for a record that is an event, false for a marker.
IS_EVENT: Final = f"(event IS NULL OR event NOT IN ({', '.join(repr(marker) for marker in sorted(MARKERS))}))"
#: The bytes of a record's data in UTF-8. (``length`` of a text counts characters, and ends at NUL.)
SIZE: Final = "length(CAST(data AS BLOB))"

_STATE: Final = (
    "SELECT (SELECT value FROM meta WHERE name = 'counted'), (SELECT value FROM meta WHERE name = 'removed'),"
    " (SELECT value FROM meta WHERE name = 'known'), (SELECT value FROM meta WHERE name = 'trimmed')"
)
_NEW: Final = f"""
    SELECT channel, count(*), sum(is_event), sum(is_event * size), min(position), max(position)
    FROM (SELECT position, channel, {IS_EVENT} AS is_event, {SIZE} AS size FROM events WHERE position > ?
          ORDER BY position LIMIT {COUNT_BITE})
    GROUP BY channel
"""
_ADD: Final = """
    INSERT INTO channels VALUES (?, ?, ?, ?, ?, 0, NULL)
    ON CONFLICT (channel) DO UPDATE SET records = records + excluded.records, events = events + excluded.events,
        bytes = bytes + excluded.bytes, first = ifnull(first, excluded.first)
"""
_SET: Final = "UPDATE meta SET value = ? WHERE name = ?"
_RAISE: Final = "UPDATE meta SET value = max(value, ?) WHERE name = ?"
_START_OVER: Final = "UPDATE channels SET records = 0, events = 0, bytes = 0, first = NULL"


def count(database: sqlite3.Connection) -> bool:
    """Count some of the records that were not counted yet. Return True if there may be more."""
    state = counted, removed, known, _ = database.execute(_STATE).fetchone()
    if removed != known:
        return _start_over(database)
    found = all_rows(database, _NEW, (counted,))
    if not found:
        return False
    patiently(database.execute, "BEGIN IMMEDIATE")
    if database.execute(_STATE).fetchone() != state:
        database.execute("ROLLBACK")  # another process has counted, trimmed or erased meanwhile
        return True
    database.executemany(_ADD, (row[:5] for row in found))
    database.execute(_SET, (max(row[5] for row in found), "counted"))
    database.execute("COMMIT")
    full: bool = sum(row[1] for row in found) == COUNT_BITE
    return full


def catch_up(database: sqlite3.Connection) -> None:
    """Count what is new, for ``COUNT_SECONDS`` at most: about a million records in two."""
    until = time.monotonic() + COUNT_SECONDS
    while count(database) and time.monotonic() < until:
        pass


def _start_over(database: sqlite3.Connection) -> bool:
    """Count everything again: an older program has trimmed. Nobody knows of which channels."""
    patiently(database.execute, "BEGIN IMMEDIATE")
    _, removed, known, trimmed = database.execute(_STATE).fetchone()
    if removed != known:
        database.execute(_RAISE, (trimmed, "coarse"))
        database.execute(_SET, (removed, "known"))
        database.execute(_SET, (0, "counted"))
        database.execute(_START_OVER)
    database.execute("COMMIT")
    return True


# ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=64)
def _in(statement: str, names: int) -> str:
    return f"{statement} IN ({', '.join('?' * names)})"


def closed(reader: sqlite3.Connection, names: Collection[str]) -> dict[str, int]:
    """Return which of these names are closed, with their closing positions."""
    found = reader.execute(_in("SELECT channel, position FROM closed WHERE channel", len(names)), tuple(names))
    return dict(found.fetchall())


# An older program may have trimmed since the books were last brought up to date.
_COARSE: Final = """
    SELECT max((SELECT value FROM meta WHERE name = 'coarse'), CASE
        WHEN (SELECT value FROM meta WHERE name = 'removed') = (SELECT value FROM meta WHERE name = 'known') THEN 0
        ELSE (SELECT value FROM meta WHERE name = 'trimmed') END)
"""
_GONE: Final = "SELECT ifnull(max(gone), 0) FROM channels WHERE channel"
_GONE_IN_RANGE: Final = "SELECT ifnull(max(gone), 0) FROM channels WHERE channel >= ? AND channel < ?"


def gone(reader: sqlite3.Connection, channels: Collection[str]) -> int:
    """Return the highest position that was trimmed of these channels, or may have been; 0 for none."""
    names, prefixes = split(channels)
    # First the channels: what is forgotten of them meanwhile is in the coarse mark.
    found: list[int] = []
    if names:
        found += reader.execute(_in(_GONE, len(names)), tuple(names)).fetchone()
    for prefix in prefixes:
        for bounds in ranges(prefix):
            found += reader.execute(_GONE_IN_RANGE, bounds).fetchone()
    if names or prefixes:
        found += reader.execute(_COARSE).fetchone()
    return max(found, default=0)


_ONE_END: Final = (
    f"(SELECT position FROM events INDEXED BY events_by_channel WHERE channel = found.channel AND {IS_EVENT}"
    " ORDER BY position {order} LIMIT 1)"
)
_LIST: Final = f"""
    SELECT channel, events, bytes, {_ONE_END.format(order="ASC")}, {_ONE_END.format(order="DESC")}, ended
    FROM (
        SELECT channel, events, bytes, EXISTS (SELECT 1 FROM closed WHERE closed.channel = channels.channel) AS ended
        FROM channels WHERE {{within}} AND (events > 0 OR ended)
        UNION ALL
        SELECT channel, 0, 0, 1 FROM closed
        WHERE {{within}} AND NOT EXISTS (SELECT 1 FROM channels WHERE channels.channel = closed.channel)
        ORDER BY channel LIMIT ?) AS found
    ORDER BY channel
"""
_WITHIN: Final = "channel >= ? AND channel < ? AND channel > ?"
_PAGE: Final = _LIST.format(within=_WITHIN)


def page(reader: sqlite3.Connection, prefix: str, after: str, limit: int) -> list[ChannelInfo]:
    """Return a page of the list of channels, as far as they are counted. See ``Log.channels``."""
    found: list[ChannelInfo] = []
    for low, high in ranges(prefix):
        within = low, high, after
        rows = all_rows(reader, _PAGE, (*within, *within, limit - len(found)))
        found += [ChannelInfo._make((*row[:-1], bool(row[-1]))) for row in rows]
    return found


# ── removing ────────────────────────────────────────────────────────────────────────────────────────────────

# (With "+" it is read by position: the index of channels would lead through the whole log.)
_FOUND: Final = f"""
    SELECT channel, sum(counted), sum(counted * is_event), sum(counted * is_event * size), max(position)
    FROM (SELECT position, +channel AS channel,
                 position <= (SELECT value FROM meta WHERE name = 'counted') AS counted,
                 {IS_EVENT} AS is_event, {SIZE} AS size
          FROM events WHERE {{which}})
    GROUP BY channel
"""
_SUBTRACT: Final = """
    INSERT INTO channels VALUES (?, ?, ?, ?, NULL, ?, NULL)
    ON CONFLICT (channel) DO UPDATE SET records = records - excluded.records, events = events - excluded.events,
        bytes = bytes - excluded.bytes, gone = max(gone, excluded.gone),
        first = (SELECT min(position) FROM events INDEXED BY events_by_channel WHERE channel = excluded.channel)
"""
_REMOVED: Final = "UPDATE meta SET value = value + ? WHERE name IN ('removed', 'known')"
_TRIMMED: Final = "UPDATE meta SET value = max(value, ?) WHERE name IN ('trimmed', 'gone')"

# As many as are counted, and those that are not. (To look at each would take as long as to remove it.)
_EVENTS: Final = f"""
    SELECT ifnull((SELECT events FROM channels WHERE channel = ?), 0) + (
        SELECT count(*) FROM events INDEXED BY events_by_channel
        WHERE channel = ? AND position > (SELECT value FROM meta WHERE name = 'counted') AND {IS_EVENT})
"""
_EMPTY: Final = "UPDATE channels SET records = 0, events = 0, bytes = 0, first = NULL WHERE channel = ?"


_COPIED: Final = "SELECT count(*) FROM sqlite_master WHERE name = 'rewritten'"


def _delete(database: sqlite3.Connection, which: str, values: Sequence[str | int]) -> int:
    """Remove records from the log, and from the copy that ``rewrite`` may be making of it; return how many."""
    removed = database.execute(f"DELETE FROM events WHERE {which}", values).rowcount
    if database.execute(_COPIED).fetchone()[0]:
        database.execute(f"DELETE FROM rewritten WHERE {which}", values)
    return removed


def trim(database: sqlite3.Connection, which: str, values: Sequence[int]) -> int:
    """Remove the records for which the condition holds; return how many. Within the caller's transaction."""
    found = database.execute(_FOUND.format(which=which), values).fetchall()
    removed = _delete(database, which, values)
    if removed:
        # (A channel that was never counted is new to the table, with nothing to subtract.)
        database.executemany(_SUBTRACT, found)
        database.execute(_REMOVED, (removed,))
        database.execute(_TRIMMED, (max(row[4] for row in found),))
    return removed


def erase(database: sqlite3.Connection, channel: str) -> int:
    """Remove a channel's records, and open it; return how many events that were. Within the caller's transaction.

    (How many is not exact if an older program has trimmed since the last ``count``.)
    """
    (events,) = database.execute(_EVENTS, (channel, channel)).fetchone()
    records = _delete(database, "channel = ?", (channel,))
    database.execute("DELETE FROM closed WHERE channel = ?", (channel,))
    database.execute(_EMPTY, (channel,))
    database.execute(_REMOVED, (records,))
    return int(events)
