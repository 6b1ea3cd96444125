"""How a follower of a SQLite log sleeps, and how a commit of any process on the machine wakes it.

A publisher *touches* the database file (utime) after its commit, and followers watch that by inotify: no
polling, so an idle follower costs nothing, and one system call a transaction reaches every worker, its own
included.

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
import select
import sqlite3
import threading
import time
from typing import Final

from sse.log._inotify import Watch

POLL_SECONDS: Final = 0.02


def touch(path: str) -> None:
    """Wake whoever watches this file, in any process; raises `OSError`."""
    os.utime(path)


class Wakeup:
    """What one follower waits with: a pipe that its own process rings, and a watch on the file."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()  # a late ring must not write into whatever got the descriptor next
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._version = -1  # as of the end of the last wait, so before the look that follows it
        self._watch: Watch | None = None
        try:
            self._watch = Watch(path)
        except OSError:
            pass  # polls instead; nothing is lost by it but a little time
        self._poll = select.poll()
        self._descriptors = [self._reader] if self._watch is None else [self._reader, self._watch.fd]
        for descriptor in self._descriptors:
            self._poll.register(descriptor, select.POLLIN)

    def ring(self) -> None:
        """Wake the waiter, from any thread."""
        with self._lock:
            if self._writer >= 0:
                try:
                    os.write(self._writer, b"\0")
                except BlockingIOError:
                    pass  # thousands of rings are waiting to be heard

    def wait(self, database: sqlite3.Connection, seconds: float) -> None:
        """Sleep until something was committed, somebody rang, or `seconds` have passed."""
        if self._watch is not None:
            self._sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        while True:
            version: int = database.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._version = version
                return
            left = deadline - time.monotonic()
            if left <= 0 or self._sleep(min(left, POLL_SECONDS)):
                return

    def _sleep(self, seconds: float) -> bool:
        awake = bool(self._poll.poll(seconds * 1000))
        if awake:
            try:
                os.read(self._reader, 65536)
            except BlockingIOError:
                pass
            if self._watch is not None:
                self._watch.drain()
        return awake

    def close(self) -> None:
        with self._lock:
            os.close(self._writer)
            self._writer = -1
        for descriptor in self._descriptors:
            self._poll.unregister(descriptor)
        os.close(self._reader)
        if self._watch is not None:
            self._watch.close()
