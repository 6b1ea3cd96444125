"""Says whether a SQLite log is sound: its file, as SQLite sees it, and what our programs rely on.

Everything is read in one transaction, so a log in use is seen at one moment. Its file stays as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

from ...events.markers import end_marker
from ...events.model import InvalidEvent, check_channel, format_id
from ..tools import Report
from .channels import IS_EVENT, SIZE
from .place import standing
from .read import all_rows
from .schema import LATEST, TABLES

# What is wrong is told so many times, of each kind.
_EXAMPLES: Final = 5

_MARKS: Final = ("trimmed", "removed", "known", "began", "coarse", "gone", "counted")
_META: Final = "SELECT name, value FROM meta"
_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table'"
_BY_TABLE: Final = "SELECT count(*) FROM events NOT INDEXED"
_BY_INDEX: Final = "SELECT count(*) FROM events INDEXED BY events_by_channel WHERE channel >= ''"
_KINDS: Final = f"""
    SELECT position FROM events
    WHERE typeof(channel) != 'text' OR typeof(data) != 'text' OR typeof(event) NOT IN ('text', 'null')
       OR typeof(retry) NOT IN ('integer', 'null') OR position <= 0
    LIMIT {_EXAMPLES}
"""
_NAMES: Final = "SELECT DISTINCT channel FROM events UNION SELECT channel FROM closed"
_COUNTED: Final = f"""
    SELECT channel, count(*), sum({IS_EVENT}), sum({IS_EVENT} * {SIZE}), min(position)
    FROM events WHERE position <= ? GROUP BY channel
"""
_BOOKED: Final = "SELECT channel, records, events, bytes, first, gone FROM channels"
_BEHIND_END: Final = f"""
    SELECT closed.channel, count(*) FROM closed JOIN events USING (channel)
    WHERE events.position > closed.position GROUP BY closed.channel LIMIT {_EXAMPLES}
"""
_ENDS: Final = "SELECT channel, closed.position, event, data FROM closed LEFT JOIN events USING (channel, position)"
_KEYS_BEYOND: Final = "SELECT count(*) FROM publishes WHERE first + count - 1 > ?"
_SPAN: Final = "SELECT count(*), count(DISTINCT channel) FROM events"


def verify(database: sqlite3.Connection, path: str, step: Callable[[str], object]) -> Report:
    """Check a log that is open for reading (``copy.reading``). step: told what is checked. Raises ``sqlite3.Error``."""
    step("pages")
    problems = [f"SQLite: {' '.join(found.split())}" for (found,) in all_rows(database, "PRAGMA quick_check(10)", ())]
    if problems != ["SQLite: ok"]:
        return Report(path, problems, [])  # what else would be found would only confuse
    tables = {name for (name,) in all_rows(database, _TABLES, ())}
    if missing := [table for table in TABLES if table not in tables]:
        remark = f"made by an older program, without {', '.join(missing)}: it is completed when it is used"
        return Report(path, [], [remark])
    found = _Check(database, path)
    for check in (found.events, found.marks, found.channels, found.ends):
        step(check.__name__)
        check()
    with closing(database.execute(_SPAN)) as cursor:
        records, channels = cursor.fetchone()
    return Report(f"{path}: {records:,} records in {channels:,} channels", found.problems, found.remarks)


class _Check:
    def __init__(self, database: sqlite3.Connection, path: str) -> None:
        self._database = database
        self._path = path
        self._meta: dict[str, int] = dict(database.execute(_META).fetchall())
        (self._latest,) = database.execute(f"SELECT max({LATEST}, ?)", (self._meta.get("lost", 0),)).fetchone()
        self.problems: list[str] = []
        self.remarks: list[str] = []

    def events(self) -> None:
        """Are all records in the table and in its index, and of the kinds that the program reads?"""
        by_table, by_index = (self._database.execute(each).fetchone()[0] for each in (_BY_TABLE, _BY_INDEX))
        if by_table != by_index:
            self.problems.append(f"the table has {by_table:,} records, its index of channels {by_index:,}")
        for (position,) in self._database.execute(_KINDS):
            self.problems.append(f"the record {position} has a field of another type, or no position")
        for (channel,) in self._some(_NAMES, lambda row: not _is_channel(row[0])):
            self.problems.append(f"{channel!r} is not the name of a channel")

    def marks(self) -> None:
        """Are the log's marks there, and in their order?"""
        meta = self._meta
        if missing := [name for name in _MARKS if name not in meta]:
            self.problems.append(f"marks are missing: {', '.join(missing)}")
            return
        for name in ("trimmed", "gone", "coarse", "counted"):
            if meta[name] > self._latest:
                beyond = f"{format_id(meta[name])}, beyond the newest id {format_id(self._latest)}"
                self.problems.append(f"the mark {name} is {beyond}")
        if meta["known"] > meta["removed"]:
            known, removed = meta["known"], meta["removed"]
            self.problems.append(f"{known:,} records are known to be removed, but only {removed:,} were")
        (keys,) = self._database.execute(_KEYS_BEYOND, (self._latest,)).fetchone()
        if keys:
            self.problems.append(f"{keys:,} idempotency keys answer with ids beyond the newest one")
        if setback := standing(self._database, self._path).setback:
            self.remarks.append(f"{setback}: at its next start the service tells clients that events may be missing")

    def channels(self) -> None:
        """Does the table of channels say what the log holds, as far as it was counted?"""
        meta = self._meta
        if any(name not in meta for name in _MARKS):
            return
        if meta["removed"] != meta["known"]:
            self.remarks.append("an older program has trimmed: the channels are counted again when the service runs")
            return
        held = {row[0]: row[1:] for row in self._database.execute(_COUNTED, (meta["counted"],))}
        booked = {row[0]: row[1:] for row in self._database.execute(_BOOKED)}
        wrong = []
        for channel in held.keys() | booked.keys():
            counted = held.get(channel, (0, 0, 0, None))
            records, events, size, first, gone = booked.get(channel, (0, 0, 0, None, 0))
            if counted[:3] != (records, events, size):
                held_now = f"{counted[1]:,} events of {counted[2]:,} bytes"
                wrong.append(f"{channel} has {held_now}, but {events:,} of {size:,} are counted")
            elif counted[3] is not None and (first is None or first > counted[3]):
                wrong.append(f"the oldest record of {channel} is not known, and will not be trimmed")
            elif counted[3] is not None and gone >= counted[3]:
                wrong.append(f"{channel} has a record below the id through which it was trimmed, {format_id(gone)}")
        self._few(sorted(wrong), "channels are not counted rightly")

    def ends(self) -> None:
        """Do closed channels end with their end?"""
        for channel, position, event, data in self._database.execute(_ENDS):
            marker = end_marker(channel)
            if event is not None and (event, data) != (marker.event, marker.data):
                self.problems.append(f"{channel} is closed at {format_id(position)}, where there is an event")
            if position > self._latest:
                self.problems.append(f"{channel} is closed at {format_id(position)}, beyond the newest id")
        for channel, events in self._database.execute(_BEHIND_END):
            self.remarks.append(f"{channel} is closed; an older program has stored {events:,} events behind its end")

    def _some(self, statement: str, wanted: Callable[[tuple[str, ...]], bool]) -> Iterator[tuple[str, ...]]:
        with closing(self._database.execute(statement)) as cursor:
            left = _EXAMPLES
            for row in cursor:
                if wanted(row):
                    yield row
                    left -= 1
                    if not left:
                        return

    def _few(self, wrong: list[str], of: str) -> None:
        self.problems += wrong[:_EXAMPLES]
        if len(wrong) > _EXAMPLES:
            self.problems.append(f"{len(wrong):,} {of} in all")


def _is_channel(name: str) -> bool:
    try:
        return bool(check_channel(name, reserved_ok=True))
    except InvalidEvent:
        return False
