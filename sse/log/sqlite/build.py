"""Builds the file of a log beside another one, and puts it in that one's place in one step.

A new file takes the place of one that is in use by nobody: a process that has the old one open would go on with it, and
what it acknowledges would be lost.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from typing import Final

from ...events.model import format_id, make_position
from ..base import LogRefused
from ..tools import Occupied
from .file import APPLICATION_ID, DAMAGE, FORMAT, OtherFormat, code_of, connect, recognise, size_of_file
from .others import Others
from .place import identity, look, note
from .schema import LATEST, create

_HOLDS: Final = f"""
    SELECT (SELECT count(*) FROM events), {LATEST}, (SELECT value FROM meta WHERE name = 'removed'),
           (SELECT value FROM meta WHERE name = 'trimmed')
"""
_NEWEST: Final = f"SELECT max({LATEST}, ifnull((SELECT value FROM meta WHERE name = 'lost'), 0))"
_HAS_NOTES: Final = "SELECT 1 FROM sqlite_master WHERE name = 'notes'"
_KEEP_NOTE: Final = "INSERT OR IGNORE INTO notes VALUES (?, ?, ?, ?)"
_LOST: Final = "INSERT OR REPLACE INTO meta VALUES ('lost', ?)"

# Beside the log: its write-ahead log and that one's index, which must not outlive it.
_PARTS: Final = ("-wal", "-shm", "-journal")


class Build:
    """A log's file in the making. What an interrupted one has left is removed.

    database: its connection, in a transaction that ``put_in_place`` commits.

    Raises ``sqlite3.Error``, ``OSError``.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._new = path + "-new"
        self._traces = False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._remove()
        # Nobody needs it if this process ends too soon: so it has no journal, and is synced once, in the end.
        # (What is removed from it is cleaned up at once, too: ``leave_no_trace``.)
        self.database = connect(
            self._new, journal_mode="OFF", synchronous="OFF", locking_mode="EXCLUSIVE", secure_delete=0
        )
        self.database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.database.execute(f"PRAGMA user_version = {FORMAT}")
        self.database.execute("BEGIN")

    def create(self) -> None:
        """Make the tables of an empty log; its marks are set later."""
        create(self.database, 0)

    def leave_no_trace(self) -> None:
        """Note that something was removed of which no byte may be left."""
        self._traces = True

    def put_in_place(self, *, tell: bool, force: bool) -> None:
        """Make it the log.

        tell: mark it, so that clients with a cursor from before this moment are told (``place``).
        force: replace a log that holds something, or that is damaged.

        Raises ``Occupied``, ``sqlite3.Error``, ``OSError``.
        """
        with closing(Standing(self._path)) as old:
            old.check_unused()
            if not force:
                old.check_empty()
            old.give_notes(self.database)
            (latest,) = self.database.execute(_NEWEST).fetchone()
            noted = look(self._path)
            if tell:
                given_out = max(latest, old.latest, noted.latest if noted else 0)
                latest = max(make_position(time.time_ns() // 1_000_000), given_out + 1)
                self.database.execute(_LOST, (latest,))
            self.database.execute("COMMIT")
            if self._traces:
                self.database.execute("VACUUM")
            self.database.close()
            _sync(self._new)
            old.leave()
            os.replace(self._new, self._path)
            note(self._path, identity(self._path), latest)
            _sync(os.path.dirname(self._path))

    def close(self) -> None:
        """Remove it, unless it was put in place."""
        self.database.close()
        self._remove()

    def _remove(self) -> None:
        for part in ("", *_PARTS):
            with suppress(FileNotFoundError):
                os.unlink(self._new + part)


class Standing:
    """What is at a log's path now; no process may open it before this is closed, if it can be read.

    events: how many it holds, None if there is no log, or none that can be read.
    latest: its newest position, 0 if unknown.

    Raises ``OSError``; ``LogRefused`` for what is not a log at all, which even ``force`` does not replace.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._unreadable: str | None = None
        self._empty = True
        self.events: int | None = None
        self.latest = 0
        if size_of_file(path):
            try:
                self._open()
            except (sqlite3.DatabaseError, OtherFormat) as error:
                self.close()
                if isinstance(error, sqlite3.Error) and code_of(error) not in DAMAGE:
                    raise
                if isinstance(error, sqlite3.Error) and code_of(error) == sqlite3.SQLITE_NOTADB:
                    raise LogRefused(f"{path}: is not a SQLite file") from None
                self._unreadable = str(error)

    def _open(self) -> None:
        self._database = database = connect(self._path)
        if recognise(database, self._path):
            self.events, self.latest, removed, trimmed = database.execute(_HOLDS).fetchone()
            self._empty = not self.events and not removed and self.latest == trimmed

    def check_unused(self) -> None:
        """Raise ``Occupied`` if another process has it open."""
        in_use = f"{self._path} is in use: stop the service, and every other process that has the log open"
        if self._database is None:
            if self._unreadable is not None:
                with closing(Others(self._path)) as others:
                    if others.exist():
                        raise Occupied(in_use)
            return
        try:
            # Only the last of its users can take a file out of WAL mode.
            self._database.execute("PRAGMA journal_mode = DELETE")
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY:
                raise
            raise Occupied(in_use) from None

    def check_empty(self) -> None:
        """Raise ``Occupied`` if there is anything but a log that never held an event."""
        if self._unreadable is not None:
            raise Occupied(f"{self._path} is damaged, or of another version: {self._unreadable}")
        if not self._empty:
            raise Occupied(f"{self._path} holds {self.events or 0:,} events, through {format_id(self.latest)}")

    def give_notes(self, database: sqlite3.Connection) -> None:
        """Add its notes to those of another log."""
        if self._database is not None and self._database.execute(_HAS_NOTES).fetchone():
            notes = self._database.execute("SELECT kind, name, value, expires FROM notes").fetchall()
            database.executemany(_KEEP_NOTE, notes)

    def leave(self) -> None:
        """Remove what must not outlive it. (If it can be read, it was put in order, and nothing is there.)"""
        if self._database is None:
            for part in _PARTS:
                with suppress(FileNotFoundError):
                    os.unlink(self._path + part)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
