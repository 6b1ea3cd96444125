"""A SQLite log's background work: retention, and checkpoints of its write-ahead log.

Of the workers that share the file, the one that holds a lock (flock) on ``<path>-upkeep`` does the work. If it
dies, the kernel releases the lock for the next; the others find it taken with one system call.

**Retention** (``retain``). Rows are removed in bites (``TRIM_BITE``), each in its own transaction together with the
marks of what was trimmed.

**Checkpoints** copy the write-ahead log's pages into the database file, so that it can start again from its
beginning. SQLite does that after a commit, in the publisher's thread, and waits for the disk twice. So
publishers have it switched off (but see ``AUTOCHECKPOINT_PAGES``), and this module does it in three steps:

1. A passive checkpoint copies nearly everything, and keeps nobody waiting.
2. Under constant load it never reaches the end: there are always new pages, and the file would grow without
   bound. So a truncating checkpoint copies the rest while it holds the write lock; publishers try again.
3. The first commit into an emptied write-ahead log waits for the disk once. This module makes it, so that no
   publisher has to.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections import deque
from contextlib import suppress
from typing import Final

from ...events.model import make_position
from ..base import IDEMPOTENCY_SECONDS, TRIM_BITE
from .erase import tidy
from .file import connect, patiently
from .notes import expire
from .place import identity, note
from .retain import Retention
from .schema import LATEST

# A write-ahead log of this size is due for a checkpoint: it slows down reading and recovery.
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024

# A smaller one that is not empty is due after this long: commits are not synced one by one
# (synchronous=NORMAL), so this is also about how much a power cut can lose.
CHECKPOINT_SECONDS: Final = 5.0

# If nobody calls ``trim``, or it does not keep up, publishers do checkpoint from this size on (64 MiB):
# they then wait for the disk, but the write-ahead log stays bounded.
AUTOCHECKPOINT_PAGES: Final = 16384

# How long step 2 may wait for the write lock, and then for readers, whose statements take milliseconds.
_TRUNCATE_SECONDS: Final = 0.25

_EXPIRE_SECONDS: Final = 5.0  # between two looks at old idempotency keys and traces
_TRACE_SECONDS: Final = 60  # a trace is for followers that read its events while they are new

_LATEST = f"SELECT {LATEST}"
_EXPIRE = "DELETE FROM publishes WHERE key IN (SELECT key FROM publishes WHERE created < ? ORDER BY created LIMIT ?)"
_FORGET = "DELETE FROM traces WHERE first IN (SELECT first FROM traces WHERE first < ? ORDER BY first LIMIT ?)"
# It must change something: SQLite does not write a page that stays as it was.
_RESTART = "UPDATE meta SET value = value + 1 WHERE name = 'checkpoints'"


class Upkeep:
    """Does the work that the module's text describes.

    path: the database file.
    retain_events: rows to keep.
    retain_seconds: age of an event.
    mark: all positions are above it (``place``).
    """

    def __init__(self, path: str, retain_events: int, retain_seconds: float, mark: int = 0) -> None:
        self._path = path
        self._file = identity(path)  # as it is now: another one that takes its place is not ours
        self._noted = mark  # the newest position given out, as last noted beside the file
        self.retention = Retention(retain_events, retain_seconds)
        self._lock_fd = os.open(path + "-upkeep", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._closed = False
        # Holds the connection while it is not in use: a thread that finds it empty leaves the work to the other.
        self._idle: deque[sqlite3.Connection] = deque()
        try:
            self._idle.append(
                connect(
                    path,
                    timeout=_TRUNCATE_SECONDS,
                    synchronous="NORMAL",
                    wal_autocheckpoint=0,
                    secure_delete=1,
                )
            )
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._expire_at = 0.0
        self._checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
        self._checkpointed: tuple[int, int] | None = None

    def bite(self) -> int:
        """Do the work that is due, one bite of each kind; return the rows removed. Raises ``sqlite3.Error``."""
        try:
            database = self._idle.popleft()
        except IndexError:
            return 0
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._checkpoint(database)
            now_ms = time.time_ns() // 1_000_000
            removed = self.retention.bite(database, now_ms) + self._expire(database, now_ms)
            self._note(database)
            return removed
        except BlockingIOError:
            return 0  # another worker's duty
        finally:
            if database.in_transaction:
                with suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
            self._idle.append(database)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close, once a bite that is under way has finished."""
        self._closed = True
        with suppress(IndexError):
            self._idle.popleft().close()
            os.close(self._lock_fd)

    def _note(self, database: sqlite3.Connection) -> None:
        (latest,) = database.execute(_LATEST).fetchone()
        if latest > self._noted:
            note(self._path, self._file, latest)
            self._noted = latest

    # ── what expires ────────────────────────────────────────────────────────────────────────────────────

    def _expire(self, database: sqlite3.Connection, now_ms: int) -> int:
        """Forget a bite of old idempotency keys, traces, notes, and of what was trimmed of channels that are empty."""
        if time.monotonic() < self._expire_at:
            return 0
        before = now_ms - IDEMPOTENCY_SECONDS * 1000
        removed: int = patiently(database.execute, _EXPIRE, (before, TRIM_BITE)).rowcount
        new = make_position(max(now_ms - _TRACE_SECONDS * 1000, 0))
        forgotten: int = patiently(database.execute, _FORGET, (new, TRIM_BITE)).rowcount
        dropped = expire(database, now_ms), Retention.forget(database, now_ms)
        tidy(database, self._path)
        if max(removed, forgotten, *dropped) < TRIM_BITE:
            self._expire_at = time.monotonic() + _EXPIRE_SECONDS
        return removed + forgotten

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    def _checkpoint(self, database: sqlite3.Connection) -> None:
        size, written = found = self._write_ahead_log()
        if found == self._checkpointed or not size:
            return
        if size < CHECKPOINT_BYTES and time.monotonic() < self._checkpoint_at:
            return
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        (busy, _, _) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
        if not busy:
            patiently(database.execute, _RESTART)
            self._checkpointed = self._write_ahead_log()

    def _write_ahead_log(self) -> tuple[int, int]:
        """Return the size of the write-ahead log in bytes, and the time of its last write, ns."""
        try:
            found = os.stat(self._path + "-wal")
        except FileNotFoundError:
            return 0, 0
        return found.st_size, found.st_mtime_ns
