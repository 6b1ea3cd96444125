"""Builds the file of a log beside another one, and puts it in that one's place in one step.

A new file takes the place only of one that nobody uses: a process that has the old one open would go on with it, and
what it acknowledges would be lost. What a log in use holds is exchanged in a transaction instead.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import closing, suppress
from typing import Final

from ...events.model import format_id, make_position
from ..base import LogRefused
from ..tools import Occupied
from .erase import alone
from .file import (
    APPLICATION_ID,
    DAMAGE,
    FORMAT,
    OtherFormat,
    code_of,
    connect,
    patiently,
    recognise,
    size_of_file,
    sync_path,
)
from .others import Others
from .place import Note, identity, look, note
from .rewrite import left_over
from .schema import LATEST, TABLES, create
from .wakeup import touch

_GIVEN_OUT: Final = f"max({LATEST}, ifnull((SELECT value FROM meta WHERE name = 'lost'), 0))"
_NEWEST: Final = f"SELECT {_GIVEN_OUT}"
_HOLDS: Final = f"""
    SELECT (SELECT count(*) FROM events), {LATEST}, {_GIVEN_OUT},
           (SELECT value FROM meta WHERE name = 'removed'), (SELECT value FROM meta WHERE name = 'trimmed')
"""
_HAS_NOTES: Final = "SELECT 1 FROM sqlite_master WHERE name = 'notes'"
_KEEP_NOTE: Final = "INSERT OR IGNORE INTO notes VALUES (?, ?, ?, ?)"
_LOST: Final = "INSERT OR REPLACE INTO meta VALUES ('lost', ?)"

# Beside the log: its write-ahead log and that one's index, which must not outlive it.
_PARTS: Final = ("-wal", "-shm", "-journal")


class Build:
    """A log's file in the making. What an interrupted one has left is removed.

    database: its connection, in a transaction that ``seal`` commits.

    Raises ``sqlite3.Error``, ``OSError``; ``Occupied`` while another process builds one in the same folder.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._new = path + "-new"
        self._traces = False
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        self._lock_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin()
        except BlockingIOError:
            os.close(self._lock_fd)
            raise Occupied(f"{folder}: another process builds a log there") from None
        except BaseException:
            self._remove()
            os.close(self._lock_fd)
            raise

    def _begin(self) -> None:
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

    def seal(self) -> None:
        """Complete the file, and make sure that it is on the disk."""
        self.database.execute("COMMIT")
        if self._traces:
            self.database.execute("VACUUM")
        self.database.close()
        sync_path(self._new)

    def put_at(self, mode: int | None = None) -> None:
        """Put the sealed file at its path, whatever is there. mode: its rights."""
        if mode is not None:
            os.chmod(self._new, mode)
        os.replace(self._new, self._path)
        os.fsync(self._lock_fd)

    def put_in_place(self, *, tell: bool, force: bool) -> None:
        """Make it the log.

        tell: mark it, so that clients with a cursor from before this moment are told (``place``).
        force: replace a log that holds something, is damaged, or is in use (which then is always marked).

        Raises ``Occupied``, ``sqlite3.Error``, ``OSError``.
        """
        with closing(Standing(self._path)) as old:
            in_use = old.in_use()
            if not force:
                old.check_empty()
                if in_use:
                    raise old.occupied()
            old.give_notes(self.database)
            if in_use:
                if old.readable:
                    old.close()
                    return self._put_into()
                raise old.occupied()
            (latest,) = self.database.execute(_NEWEST).fetchone()
            if tell:
                latest = _mark(self.database, latest, old.latest, look(self._path))
            self.seal()
            owner = _Owner(self._path)
            old.leave()
            owner.give(self._new)
            self.put_at()
            note(self._path, identity(self._path), latest)
            owner.give(self._path + "-upkeep")

    def _put_into(self) -> None:
        """Replace what a log in use holds, and mark it, in one transaction: its followers notice (``engine``)."""
        self.seal()
        with closing(connect(self._path, synchronous="FULL", wal_autocheckpoint=0, secure_delete=1)) as database:
            database.execute("ATTACH ? AS new", (self._new,))
            if not alone(self._path, self._exchange, database):
                raise Occupied(f"{self._path}: another process is erasing a channel; try again")
            touch(self._path)

    def _exchange(self, database: sqlite3.Connection) -> None:
        patiently(database.execute, "BEGIN IMMEDIATE")
        (before,) = database.execute(_NEWEST).fetchone()
        for table in left_over(database):  # by a rewriting: it would bring back what it has copied
            database.execute(f"DROP TABLE {table}")
        for table in ("traces", *TABLES):
            if table != "notes":
                database.execute(f"DELETE FROM main.{table}")
            database.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM new.{table}")
        (latest,) = database.execute(_NEWEST).fetchone()
        # First the line, as in ``place.mark``.
        note(self._path, identity(self._path), _mark(database, latest, before, look(self._path)))
        database.execute("COMMIT")

    def close(self) -> None:
        """Remove it, unless it was put in place."""
        self.database.close()
        self._remove()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _remove(self) -> None:
        for part in ("", *_PARTS):
            with suppress(FileNotFoundError):
                os.unlink(self._new + part)


class Standing:
    """What is at a log's path now; no process may open it before this is closed, if it can be read.

    events: how many it holds, None if there is no log, or none that can be read.
    latest: the newest position it has given out, 0 if unknown.

    Raises ``OSError``; ``LogRefused`` for what is not a log at all, which even ``force`` does not replace.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._unreadable: str | None = None
        self._empty = True
        self.events: int | None = None
        self.latest = 0
        if os.path.islink(path):
            raise LogRefused(f"{path}: is a link: name the file that it leads to")
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
            self.events, latest, self.latest, removed, trimmed = database.execute(_HOLDS).fetchone()
            self._empty = not self.events and not removed and latest == trimmed

    @property
    def readable(self) -> bool:
        return self._unreadable is None

    def in_use(self) -> bool:
        """Return True if another process has it open; if not, none can open it from now on."""
        if self._database is None:
            with closing(Others(self._path)) as others:
                return self._unreadable is not None and others.exist()
        try:
            # Only the last of its users can take a file out of WAL mode.
            self._database.execute("PRAGMA journal_mode = DELETE")
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY:
                raise
            return True
        return False

    def occupied(self) -> Occupied:
        """Return the error that says that it is in use."""
        return Occupied(f"{self._path} is in use: stop the service, and every other process that has the log open")

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


class _Owner:
    """Gives files the owner and rights of the one whose place they take; else the folder's owner, if we may.

    Threat: who restores may be root in a pod whose service is not.
    """

    def __init__(self, path: str) -> None:
        exists = os.path.exists(path)
        like = os.stat(path if exists else os.path.dirname(path))
        self._ids, self._mode = (like.st_uid, like.st_gid), like.st_mode & 0o777 if exists else None

    def give(self, path: str) -> None:
        with suppress(PermissionError):
            os.chown(path, *self._ids)
            if self._mode is not None:
                os.chmod(path, self._mode)


def _mark(database: sqlite3.Connection, latest: int, before: int, noted: Note | None) -> int:
    """Mark a log above all positions that were given out, and return the mark."""
    given_out = max(latest, before, noted.latest if noted else 0)
    mark = max(make_position(time.time_ns() // 1_000_000), given_out + 1)
    database.execute(_LOST, (mark,))
    return mark
