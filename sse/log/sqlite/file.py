"""The file of a SQLite log: making it, recognising it, connecting to it, and what its errors mean.

**Never open this file, or its ``-shm``, except through SQLite.** POSIX drops all locks that a process has
on a file when it closes *any* descriptor of it, so a well-meant ``open(path).read(16)`` beside a live
connection removes that connection's locks, and two processes then write at once
(sqlite.org/howtocorrupt.html, 2.2).

A file is recognised by the application id and user version in its header. Any other file is only examined
through connections that cannot write, and stays as it is, byte for byte.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, Final, TypeVar
from urllib.parse import quote

from ...events.model import make_position
from ..base import LogRefused, LogUnavailable, Stored
from .place import identity, mark, note, standing
from .schema import complete, create

T = TypeVar("T")

APPLICATION_ID: Final = 0x48575452  # "HWTR"
FORMAT: Final = 1  # user_version: raised whenever an older program could not read or write the file rightly

# Every page of a file up to this size is checked when it is opened (0.1 s); of a larger one its header,
# schema and both ends, because each worker of a pod that starts would read all of it.
CHECK_BYTES: Final = 64 * 1024 * 1024

# How long we wait for the write lock in all, and between two tries, seconds. SQLite's own busy timeout
# would sleep in C, with the event loop's thread; ours is cooperative where time.sleep is.
LOCK_SECONDS: Final = 5.0
_PAUSE_FIRST, _PAUSE_MOST, _PAUSE_GROWTH = 0.0001, 0.01, 1.5

_CONTENTION: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNTOUCHED: Final = "it was left as it is"
# SQLITE_ERROR: a statement that does not fit the schema; a table or column of it is missing.
DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


class OtherFormat(LogRefused):
    """A log of another version of Headwater."""


def connect(path: str, *, timeout: float = 0.0, **pragmas: int | str) -> sqlite3.Connection:
    """Open a connection in autocommit mode with these pragmas, for any one thread at a time.

    timeout: SQLite's own, in seconds; 0 wherever an event loop may be waiting (see ``patiently``).
    """
    database = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        for name, value in pragmas.items():
            patiently(database.execute, f"PRAGMA {name} = {value}")
    except BaseException:
        database.close()
        raise
    return database


def open_writer(path: str, *, synchronous: str, wal_autocheckpoint: int) -> tuple[sqlite3.Connection, int]:
    """Open the writing connection of a prepared log. Return it, and the mark below which events may be missing.

    The mark is 0 for none (``place``). Raises ``LogRefused``, ``sqlite3.Error``, ``OSError``.
    """
    writer = connect(path, synchronous=synchronous, wal_autocheckpoint=wal_autocheckpoint, secure_delete=1)
    try:
        _write_ahead(writer, path)
        patiently(complete, writer)
        found = patiently(standing, writer, path)
        if found.setback or found.noted is None:
            # If several workers open at once, one marks it or writes the line, and the others see that.
            patiently(writer.execute, "BEGIN IMMEDIATE")
            found = standing(writer, path)
            if found.setback:
                return writer, mark(writer, path, found)
            if found.noted is None:
                note(path, identity(path), found.latest)
            writer.execute("COMMIT")
        return writer, found.mark
    except BaseException:
        writer.close()
        raise


def patiently(call: Callable[..., T], *args: Any) -> T:
    """Repeat ``call(*args)`` while another process holds the lock, for ``LOCK_SECONDS`` at most."""
    pause = _PAUSE_FIRST
    deadline = 0.0
    while True:
        try:
            return call(*args)
        except sqlite3.OperationalError as error:
            if code_of(error) not in _CONTENTION:
                raise
            now = time.monotonic()
            deadline = deadline or now + LOCK_SECONDS
            if now >= deadline:
                raise
        time.sleep(pause)
        pause = min(pause * _PAUSE_GROWTH, _PAUSE_MOST)


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code (sqlite.org/rescode.html); 0 for an error that the Python module made."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def wrote_nothing(error: Exception) -> bool:
    """Return True if a transaction whose COMMIT failed with this error certainly left nothing.

    Other errors, such as an I/O error, may occur once the commit is in the write-ahead log, where the next process to
    open it would find it.
    """
    return isinstance(error, sqlite3.Error) and code_of(error) in (_CONTENTION | {sqlite3.SQLITE_FULL})


def unavailable(error: Exception, path: str, stored: Stored = "unknown") -> LogUnavailable:
    """Translate the error of a statement or system call, whose transaction was rolled back."""
    if isinstance(error, LogUnavailable):
        return error
    if isinstance(error, sqlite3.Error):
        code = code_of(error)
        if code in _CONTENTION:
            return LogUnavailable(f"{path}: locked by another process for {LOCK_SECONDS:g} s", stored=stored)
        if code == sqlite3.SQLITE_FULL:
            return LogUnavailable(f"{path}: {error}", 5.0, stored=stored)
    return LogUnavailable(f"{path}: {error}", stored=stored)


def prepare(path: str) -> None:
    """Create the file and its directory if there are none (or the file is empty), and make sure that it is ours.

    Raises ``LogRefused``; ``LogUnavailable`` for what may pass (a full disk, a lock) or is a matter of rights.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = size_of_file(path)
        if not (size and _examine(path, size)):
            with closing(connect(path)) as database:
                _create(database, path)
    except OSError as error:
        raise LogUnavailable(f"{path}: cannot be opened: {error.strerror}", stored="no") from error
    except sqlite3.Error as error:
        if code_of(error) in DAMAGE:
            raise LogRefused(f"{path}: damaged: {error}; {_UNTOUCHED}") from error
        raise unavailable(error, path, "no") from error


def size_of_file(path: str) -> int:
    """Return the file's size in bytes, 0 without a file. Raises ``LogRefused`` for anything but a file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        raise LogRefused(f"{path}: is not a regular file")
    return found.st_size


def is_sqlite(path: str) -> bool:
    """Return whether a file that no process uses, a backup, begins as SQLite's do. Raises ``OSError``."""
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def space(path: str) -> tuple[int, int]:
    """Return the log's bytes, with its write-ahead log, and the bytes free on its disk. Raises ``OSError``."""
    size = 0
    for file in (path, f"{path}-wal"):
        with suppress(FileNotFoundError):
            size += os.stat(file).st_size
    disk = os.statvfs(os.path.dirname(path))
    return size, disk.f_bavail * disk.f_frsize


def _examine(path: str, size: int) -> bool:
    """Return True for a sound log, False for an empty database. Raises ``LogRefused`` for anything else."""
    # First as if on a read-only medium: no lock, no -wal, no -shm is made beside a file that may be anyone's.
    with closing(sqlite3.connect(f"file:{quote(path)}?immutable=1", uri=True)) as database:
        # A log of ours that is in use, or was killed, may well look torn without its -wal: not to be judged yet.
        with suppress(sqlite3.Error):
            recognise(database, path)
    # Then with what its -wal holds; still without the right to write (the checkpoint at closing would).
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=LOCK_SECONDS)) as database:
        database.execute("BEGIN")  # one moment for all that follows: another worker may be making the log
        if not recognise(database, path):
            return False  # whoever made it: as good as an empty file
        if size <= CHECK_BYTES:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise LogRefused(f"{path}: damaged: {verdict.strip()}; {_UNTOUCHED}")
        for order in ("ASC", "DESC"):
            database.execute(f"SELECT * FROM events ORDER BY position {order} LIMIT 1").fetchone()
        database.execute("SELECT * FROM publishes LIMIT 1").fetchone()
        if database.execute("SELECT value FROM meta WHERE name = 'trimmed'").fetchone() is None:
            raise LogRefused(f"{path}: damaged: its trim mark is missing; {_UNTOUCHED}")
    return True


def recognise(database: sqlite3.Connection, path: str) -> bool:
    """Return True for a log, False for an empty database, by the header alone. Raises ``LogRefused`` for another."""
    application, version = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application == APPLICATION_ID and version == FORMAT:
        return True
    if application == APPLICATION_ID:
        reads = f"this version of Headwater reads format {FORMAT}"
        raise OtherFormat(f"{path}: has format {version}; {reads}; {_UNTOUCHED}")
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application or version or tables:
        raise LogRefused(f"{path}: is another program's SQLite database; {_UNTOUCHED}")
    return False


def _create(database: sqlite3.Connection, path: str) -> None:
    # An empty file needs no journal to go back to; without one, a process that is killed here leaves behind
    # either an empty file or a valid, empty database, and the next one starts afresh from both.
    if patiently(database.execute, "PRAGMA page_count").fetchone()[0] == 0:
        try:
            database.execute("PRAGMA journal_mode = MEMORY")
        except sqlite3.OperationalError as error:
            if code_of(error) not in _CONTENTION:
                raise  # else another worker has made the log since, and uses it
    _write_ahead(database, path)
    patiently(database.execute, "BEGIN IMMEDIATE")  # of several workers that start at once, one makes the log
    if not recognise(database, path):
        created = make_position(time.time_ns() // 1_000_000)
        create(database, created)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {FORMAT}")
        note(path, identity(path), created)  # before anybody sees a log here that is not noted
    database.execute("COMMIT")


def _write_ahead(database: sqlite3.Connection, path: str) -> None:
    """Put the file into WAL mode.

    A copy made by VACUUM INTO is in the old mode, in which readers lock out commits.
    """
    (mode,) = patiently(database.execute, "PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LogRefused(f"{path}: its file system cannot share memory between processes (SQLite's WAL mode)")


def sync_path(path: str) -> None:
    """Bring a file, or the entries of a directory, to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
