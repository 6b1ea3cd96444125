"""Copies a SQLite log: for a backup while it is in use, and from a backup.

Rows are copied, not pages: so the copy has no free pages, and nothing that was trimmed or erased, nor a rewriting that
is under way (``rewrite``). They are read in one transaction, so all of them are of one moment: every commit before it,
and none after it. Publishers do not wait for it; but the write-ahead log cannot be emptied meanwhile, and grows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from ..base import LogRefused
from ..tools import Copying
from .file import LOCK_SECONDS, recognise
from .schema import ADDED_TABLES, FIRST_TABLES, complete

_BATCH_ROWS: Final = 1000
_BATCH_CHARS: Final = 1024 * 1024

_SPAN: Final = "SELECT ifnull(min(position), 0), ifnull(max(position), 0) FROM events"
_EXISTS: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"

@contextmanager
def reading(path: str) -> Iterator[sqlite3.Connection]:
    """Open a log, or a backup of one, to read it at one moment; its file stays as it is.

    Raises ``LogRefused`` for what is not a log, ``sqlite3.Error``.
    """
    try:
        database = _open(path, "mode=ro")
        database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        # In WAL mode, which a plain copy of a log is in, and nothing may be written beside it.
        database = _open(path, "immutable=1")
    try:
        database.execute("BEGIN")
        if not recognise(database, path):
            raise LogRefused(f"{path}: is an empty database, not a log")
        yield database
    finally:
        database.close()


def _open(path: str, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?{how}", uri=True, timeout=LOCK_SECONDS, isolation_level=None)


def copy(source: sqlite3.Connection, target: sqlite3.Connection, progress: Copying) -> int:
    """Copy all of a log into a new file, which has its first tables; return the number of records.

    Raises ``sqlite3.Error``.
    """
    first, last = source.execute(_SPAN).fetchone()
    count = 0
    target.execute("DELETE FROM meta")
    for rows in _batches(source, "events"):
        _insert(target, "events", rows)
        count += len(rows)
        progress(count, (rows[-1][0] - first) / max(last - first, 1))
    for table in FIRST_TABLES[1:]:
        for rows in _batches(source, table):
            _insert(target, table, rows)
    complete(target)  # the books of a log that has none begin here
    for table in ADDED_TABLES:
        if source.execute(_EXISTS, (table,)).fetchone():
            for rows in _batches(source, table):
                _insert(target, table, rows)
    return count


def _batches(source: sqlite3.Connection, table: str) -> Iterator[list[tuple[Any, ...]]]:
    rows: list[tuple[Any, ...]] = []
    chars = 0
    for row in source.execute(f"SELECT * FROM {table}"):
        rows.append(row)
        chars += len(row[-1]) if table == "events" else 0
        if len(rows) >= _BATCH_ROWS or chars >= _BATCH_CHARS:
            yield rows
            rows, chars = [], 0
    if rows:
        yield rows


def _insert(target: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    target.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
