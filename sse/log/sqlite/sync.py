"""What ``?sync=full`` needs beyond ``synchronous=FULL``, SQLite's sync of the write-ahead log in each commit.

SQLite syncs the write-ahead log before it publishes a commit in the shared index (``sqlite3WalFrames``, wal.c). So no
reader, in any process, sees an event that a power cut could take back.

**After a failed sync** nobody knows what is on the disk: Linux reports the error once, marks the pages as clean, and
the next sync succeeds without them (fsync(2), "errors that occur during writeback"). So nothing more is stored until
``Sync.write_again`` has brought the whole log to the disk once more, from memory.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import Final

from ...runtime.cooperation import OwnThread
from ..base import LogUnavailable
from .file import code_of, connect, sync_path

# How long a checkpoint may wait for readers and for other writers, seconds.
_WAIT_SECONDS: Final = 0.25


class Sync:
    """How the log at ``path`` is synced.

    full: in each commit, before anybody is told of it.
    pragma: SQLite's ``synchronous``, for connections whose commits are acknowledged.
    thread: where commits wait for the disk.
    failed: was there an error after which what was written may not be on the disk, though later syncs succeed?
    """

    def __init__(self, path: str, *, full: bool) -> None:
        self._path = path
        self.full = full
        self.pragma = "FULL" if full else "NORMAL"
        self.thread = OwnThread()
        self.failed = False

    def begin(self) -> None:
        """Make durable what is there when a log is opened: earlier commits, the file beside it, and the directories.

        A program without ``sync=full`` may have used it before. Raises ``sqlite3.Error``, ``OSError``.
        """
        if not self.full:
            return
        with closing(self._connect()) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        for file in (self._path + "-wal", self._path + "-upkeep"):
            with suppress(FileNotFoundError):
                sync_path(file)
        directory = os.path.dirname(self._path)
        sync_path(directory)
        while directory != (directory := os.path.dirname(directory)):
            with suppress(PermissionError):  # then it was not made by us
                sync_path(directory)

    def note(self, error: Exception) -> None:
        """Note an error of a connection that writes."""
        if self.full and isinstance(error, sqlite3.Error) and code_of(error) == sqlite3.SQLITE_IOERR:
            self.failed = True

    def write_again(self) -> None:
        """Copy the write-ahead log into the file, sync that, and empty the write-ahead log. Waits for the disk.

        Raises ``LogUnavailable`` if others keep it from being emptied; ``sqlite3.Error``.
        """
        with closing(self._connect()) as database:
            if database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                reason = "a sync has failed, and what was written cannot be written again while others use the log"
                raise LogUnavailable(f"{self._path}: {reason}", stored="no")
        self.failed = False

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, timeout=_WAIT_SECONDS, synchronous="FULL", wal_autocheckpoint=0)
