"""Tells whether another process follows this SQLite log: only then must a commit be announced to other processes.

Each follower holds a read lock on ``<path>-upkeep``; after a commit, a publisher checks with one system call whether
another process holds one. A follower takes its lock before its first look at the file: so it sees every commit
checked before the lock, and is told of every later one. When a process dies, the kernel releases its lock.

The locks belong to an open file description (fcntl(2), F_OFD_SETLK): they tell two logs of one process apart, and
survive the closing of other descriptors of the file. They do not affect ``upkeep``'s flock on the same file.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

# struct flock of Linux (64-bit offsets): type, whence, start, length (0: all there is), process. Other systems lack
# the commands; there every commit is announced.
_FLOCK: Final = "hhqqi4x"


def _flock(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


_SET: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
_ASK: Final[int | None] = getattr(fcntl, "F_OFD_GETLK", None)
_READ, _WRITE, _NONE = _flock(fcntl.F_RDLCK), _flock(fcntl.F_WRLCK), _flock(fcntl.F_UNLCK)


class Others:
    """The followers of the log at ``path``. Make one for each open log. Raises ``OSError``."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path + "-upkeep", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._followers = 0  # here

    def follow_too(self) -> None:
        """Be seen by other processes' publishers, until ``stop_following`` was called as many times."""
        self._followers += 1
        if self._followers == 1:
            self._lock(_READ)

    def stop_following(self) -> None:
        self._followers -= 1
        if self._followers == 0:
            self._lock(_NONE)

    def exist(self) -> bool:
        """Return True if another log object follows the file, or if that cannot be known."""
        if _ASK is None:
            return True
        try:
            return fcntl.fcntl(self._fd, _ASK, _WRITE)[:2] != _NONE[:2]
        except OSError:
            return True

    def close(self) -> None:
        """Close the file, which also releases the lock."""
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _lock(self, kind: bytes) -> None:
        # If this fails, the check fails, too, and every commit is announced.
        if _SET is not None and self._fd >= 0:
            with suppress(OSError):
                fcntl.fcntl(self._fd, _SET, kind)
