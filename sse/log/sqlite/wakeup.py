"""How a follower of a SQLite log sleeps, and how a commit of any process on the machine wakes it.

A publisher rings for the followers of its own process. Where others follow, too (`_sqlite_others`), it *touches* the
database file (utime) after its commit, and they watch that by inotify: no polling, so an idle follower costs nothing,
and one system call a transaction reaches every worker.

Why not watch the ``-wal`` file for writes, which would need no touch? A transaction of ten thousand events
writes it hundreds of times, and each would wake every worker for nothing; the last write comes *before* the
commit shows in the shared index, so a follower that is quick looks too early and then sleeps on; and the
file comes and goes with the first and the last connection. The touch comes once, after the commit can be
seen, on a file that stays.

Where there is no inotify, followers ask SQLite for its data version every `POLL_SECONDS` instead (0.7 % of a
core, while idle). A publisher that is killed between commit and touch delays what it had stored until the next event or
the follower's next look of its own, within `QUIET_SECONDS`.
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
    """Wake whoever watches this file, in any process; raises `OSError`."""
    os.utime(path)


class Wakeup:
    """What one follower waits with: a bell for its own process, and a watch on the file for all others."""

    def __init__(self, path: str) -> None:
        self._version = -1  # as of the end of the last wait, so before the look that follows it
        self._watch: Watch | None = None
        try:
            self._watch = Watch(path)
        except OSError:
            pass  # polls instead; nothing is lost by it but a little time
        self._bell = make_bell([] if self._watch is None else [self._watch.fd])

    def ring(self) -> None:
        """Wake the waiter, from any thread."""
        self._bell.ring()

    def wait(self, database: sqlite3.Connection, seconds: float) -> bool:
        """Sleep until something was committed, somebody rang, or `seconds` have passed. Says whether the file may have
        something new."""
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
