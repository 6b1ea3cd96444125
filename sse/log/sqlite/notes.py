"""Notes in a SQLite log: small values that all workers see, with an expiry."""

from __future__ import annotations

import sqlite3
from typing import Final

from ..base import ANY, TRIM_BITE, Expected
from ..rules import now_ms
from .file import patiently

_ALL: Final = "SELECT name, value FROM notes WHERE kind = ? AND expires > ?"
_ONE: Final = "SELECT value FROM notes WHERE kind = ? AND name = ? AND expires > ?"
_PUT: Final = "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)"
_DROP: Final = "DELETE FROM notes WHERE kind = ? AND name = ?"
_EXPIRE: Final = (
    "DELETE FROM notes WHERE (kind, name) IN (SELECT kind, name FROM notes WHERE expires <= ? ORDER BY expires LIMIT ?)"
)


def put(database: sqlite3.Connection, kind: str, name: str, value: str, seconds: float, expected: Expected) -> bool:
    """See ``Log.put_note``. Raises ``sqlite3.Error``."""
    patiently(database.execute, "BEGIN IMMEDIATE")
    now = now_ms()
    if expected is not ANY:
        found = database.execute(_ONE, (kind, name, now)).fetchone()
        if expected != (found and found[0]):
            database.execute("ROLLBACK")
            return False
    database.execute(_PUT, (kind, name, value, now + int(seconds * 1000)))
    database.execute("COMMIT")
    return True


def drop(database: sqlite3.Connection, kind: str, name: str) -> None:
    """See ``Log.drop_note``. Raises ``sqlite3.Error``."""
    patiently(database.execute, _DROP, (kind, name))


def fresh(reader: sqlite3.Connection, kind: str) -> dict[str, str]:
    """Return the notes of a kind that have not expired."""
    return dict(reader.execute(_ALL, (kind, now_ms())).fetchall())


def expire(database: sqlite3.Connection, now: int) -> int:
    """Remove a bite of the notes that have expired; return how many. now: unix ms. Raises ``sqlite3.Error``."""
    removed: int = patiently(database.execute, _EXPIRE, (now, TRIM_BITE)).rowcount
    return removed
