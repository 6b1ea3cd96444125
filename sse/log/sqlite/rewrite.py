"""Leaves no byte of removed events in a SQLite log's files, in small steps, while the log is in use.

SQLite does not do that by itself. ``secure_delete`` zeroes a row when it is deleted, but when a page becomes too empty
SQLite moves the rows that are left to its neighbours, and copies of them stay behind in the unused part of pages. (In
random histories with that pragma alone, 6 of 100 logs still held text of an erased channel; without it, nearly all.)
VACUUM does it, but locks out publishers for as long as that takes, and needs as much room for temporary files.

So all events that are left are copied into a second table, which takes the place of the first. Removed events were
never in it. Then the first table is emptied: a page that is freed as a whole is zeroed as a whole (``secure_delete``).

1. Pages that are free already may hold what an older program has trimmed. They are filled with zeros.
2. The events are copied in bites, oldest first. What is published meanwhile is behind the end of the copy, and is
   copied later. What is trimmed or erased meanwhile is removed from the copy, too (``channels``). An older program does
   not do that, but it trims only what is oldest in the whole log.
3. One transaction copies the rest and exchanges the tables: it swaps their root pages in the schema, so that the index
   keeps its name, by which the statements of running programs know it.
4. What is now the second table is emptied in bites, and dropped.
5. A checkpoint empties the write-ahead log.

All connections that write use ``secure_delete``: a page that is taken into use again is zeroed, too, but for the rest
of a value's last page.

A process killed on the way leaves a second table that nobody reads. The next upkeep or rewriting removes it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from ...events.model import MAX_POSITION
from ..base import LogUnavailable
from .file import connect, patiently
from .read import all_rows

# Publishers wait for as long as a bite takes, so it is made larger or smaller until it takes about this, seconds. Then
# they have the lock for as long, but not for longer than the pause.
_BITE_SECONDS: Final = 0.01
_PAUSE_MOST: Final = 0.003
_FIRST_BITE: Final = 100  # rows or pages
_MOST: Final = 5000

# The write-ahead log is copied into the file when it is this large.
_CHECKPOINT_BYTES: Final = 16 * 1024 * 1024

# How long the last checkpoint may wait for readers and publishers, seconds; and each try.
_TRUNCATE_SECONDS: Final = 5.0
_TRY_SECONDS: Final = 0.25

_TABLES: Final = (
    "CREATE TABLE rewritten (position INTEGER PRIMARY KEY, channel TEXT NOT NULL, event TEXT, retry INTEGER,"
    " data TEXT NOT NULL)",
    "CREATE INDEX rewritten_by_channel ON rewritten (channel)",
)
_COPY: Final = """
    INSERT INTO rewritten
    SELECT * FROM events WHERE position > ifnull((SELECT max(position) FROM rewritten), -1) ORDER BY position LIMIT ?
"""
_TRIMMED_MEANWHILE: Final = f"""
    DELETE FROM rewritten WHERE position < ifnull((SELECT min(position) FROM events), {MAX_POSITION})
"""
_SWAPPED: Final = (("events", "rewritten"), ("events_by_channel", "rewritten_by_channel"))
_ROOT: Final = "SELECT rootpage FROM sqlite_master WHERE name = ?"
_SET_ROOT: Final = "UPDATE sqlite_master SET rootpage = ? WHERE name = ?"
_EMPTY: Final = """
    DELETE FROM rewritten WHERE position <= (
        SELECT max(position) FROM (SELECT position FROM rewritten ORDER BY position LIMIT ?))
"""
_TABLES_OF_OURS: Final = "SELECT name FROM sqlite_master WHERE name IN ('rewritten', 'zeros')"
_HEAD_MOST: Final = 16  # more than the head of a row of one value takes
_NEXT_PAGE: Final = 4  # bytes of a page of a large value that are not its own


def rewrite(path: str) -> None:
    """Do all the steps. Only one process may, at a time (``erase``).

    Raises ``LogUnavailable`` if readers keep the write-ahead log from being emptied; ``sqlite3.Error``, ``OSError``.
    """
    sweep(path)
    with _Bites(path) as bites:
        _zero_free_pages(bites)
        for statement in _TABLES:
            patiently(bites.database.execute, statement)
        bites.run(_copy)
    sweep(path)  # with another connection, which knows the tables as they are now
    with _Bites(path) as bites:
        _truncate(bites.database, path)


def left_over(database: sqlite3.Connection) -> list[str]:
    """Return the tables of a rewriting that is under way, or was never finished. Raises ``sqlite3.Error``."""
    return [name for (name,) in all_rows(database, _TABLES_OF_OURS, ())]


def sweep(path: str) -> None:
    """Remove what a rewriting has left or no longer needs. Raises ``sqlite3.Error``, ``OSError``."""
    with _Bites(path) as bites:
        for table in left_over(bites.database):
            bites.run(_empty if table == "rewritten" else _give_back)
            patiently(bites.database.execute, f"DROP TABLE {table}")


class _Bites:
    """A connection, and work on it in transactions of bounded time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.database = connect(
            path, timeout=_TRY_SECONDS, synchronous="NORMAL", wal_autocheckpoint=0, secure_delete=1
        )

    def __enter__(self) -> _Bites:
        return self

    def __exit__(self, *error: object) -> None:
        self.database.close()

    def run(self, work: Callable[[sqlite3.Connection, int], bool]) -> None:
        """Call ``work(database, bite)``, each time in a transaction, until it returns False: it is done."""
        database, bite, more = self.database, float(_FIRST_BITE), True
        while more:
            patiently(database.execute, "BEGIN IMMEDIATE")
            started = time.monotonic()
            more = work(database, int(bite))
            database.execute("COMMIT")
            took = time.monotonic() - started
            bite = min(max(bite * min(_BITE_SECONDS / max(took, 1e-6), 2.0), 1.0), _MOST)
            if more:
                self._checkpoint()
                time.sleep(min(took, _PAUSE_MOST))

    def _checkpoint(self) -> None:
        if os.stat(self._path + "-wal").st_size > _CHECKPOINT_BYTES:
            self.database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _copy(database: sqlite3.Connection, rows: int) -> bool:
    """Copy events; exchange the tables with the last of them."""
    if database.execute(_COPY, (rows,)).rowcount == rows:
        return True
    database.execute(_TRIMMED_MEANWHILE)
    database.execute("PRAGMA writable_schema = 1")
    for name, other in _SWAPPED:
        roots = [database.execute(_ROOT, (each,)).fetchone()[0] for each in (name, other)]
        database.executemany(_SET_ROOT, zip(roots, (other, name), strict=True))
    # Makes every connection read the schema again before its next statement.
    (version,) = database.execute("PRAGMA schema_version").fetchone()
    database.execute(f"PRAGMA schema_version = {version + 1}")
    return False


def _empty(database: sqlite3.Connection, rows: int) -> bool:
    return database.execute(_EMPTY, (rows,)).rowcount > 0


def _zero_free_pages(bites: _Bites) -> None:
    database = bites.database
    if database.execute("PRAGMA freelist_count").fetchone()[0]:
        patiently(database.execute, "CREATE TABLE zeros (zeros BLOB)")
        bites.run(_fill)
        database.execute("PRAGMA secure_delete = 2")  # they are zeroed already
        bites.run(_give_back)
        patiently(database.execute, "DROP TABLE zeros")
        database.execute("PRAGMA secure_delete = 1")


def _fill(database: sqlite3.Connection, pages: int) -> bool:
    """Take free pages into use for values of zeros. No page may be left with an end that was not written."""
    (free,) = database.execute("PRAGMA freelist_count").fetchone()
    if free:
        # sqlite.org/fileformat2.html, 1.6: of a value that is too large, what a row keeps is at least this, and as much
        # more as makes the rest fill whole pages.
        (page_size,) = database.execute("PRAGMA page_size").fetchone()
        kept = (page_size - 12) * 32 // 255 - 23
        size = min(free, pages) * (page_size - _NEXT_PAGE) + kept + _HEAD_MOST
        database.execute("INSERT INTO zeros VALUES (zeroblob(?))", (size,))
    return bool(free)


def _give_back(database: sqlite3.Connection, pages: int) -> bool:
    return database.execute("DELETE FROM zeros WHERE rowid = (SELECT min(rowid) FROM zeros)").rowcount > 0


def _truncate(database: sqlite3.Connection, path: str) -> None:
    """Empty the write-ahead log."""
    deadline = time.monotonic() + _TRUNCATE_SECONDS
    while database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline:
            raise LogUnavailable(f"{path}: readers have kept the write-ahead log in use for {_TRUNCATE_SECONDS:g} s")
