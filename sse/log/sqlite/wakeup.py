"""How a follower of a SQLite log sleeps, and how a commit of any process on the machine wakes it.

A publisher rings for the followers of its own process. If others follow, too (``others``), it *touches* the database
file (utime) after its commit, and they watch the file with inotify: no polling, so an idle follower costs nothing,
and one system call a transaction reaches every worker.

Why not watch the ``-wal`` file for writes, which would need no touch? A transaction of ten thousand events
writes it hundreds of times, and each write would wake every worker for nothing; the last write happens *before*
the commit shows in the shared index, so a quick follower would look too early and then sleep on; and the
file is created with the first connection and removed with the last. The touch happens once, after the commit is
visible, on a file that stays.

Without inotify, followers ask SQLite for its data version every ``POLL_SECONDS`` instead (0.7 % of a
core, while idle). If a publisher is killed between commit and touch, its events are seen with the next event or at
the follower's next regular look, within ``QUIET_SECONDS``.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Final

from ...runtime.bell import make_bell
from .inotify import Watch

POLL_SECONDS: Final = 0.02


def touch(path: str) -> None:
    """Wake the followers that watch this file, in all processes. Raises ``OSError``."""
    os.utime(path)


class Wakeup:
    """What one follower waits on: a bell for its own process, and a watch on the file for all others."""

    def __init__(self, path: str) -> None:
        self._version = -1  # as of the end of the last wait, so before the look that follows it
        self._watch: Watch | None = None
        try:
            self._watch = Watch(path)
        except OSError:
            pass  # poll instead; that only costs a little time
        self._bell = make_bell([] if self._watch is None else [self._watch.fd])

    def ring(self) -> None:
        """Wake the waiter, from any thread."""
        self._bell.ring()

    def wait(self, database: sqlite3.Connection, seconds: float) -> bool:
        """Sleep until a commit, a ring, or the end of ``seconds``. Return whether the file may hold something new."""
        if self._watch is not None:
            if self._bell.wait(seconds) != "readable":
                return False
            self._watch.drain()
            return True
        deadline = time.monotonic() + seconds
        while True:
            version: int = database.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._version = version
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self._bell.wait(min(left, POLL_SECONDS)) == "rung":
                return False

    def close(self) -> None:
        self._bell.close()
        if self._watch is not None:
            self._watch.close()
