"""Does any other process follow this SQLite log? Only then must a commit be announced outside of its own.

Who follows holds a read lock on ``<path>-upkeep`` for as long as it does, and a publisher asks, in one system call
after its commit, whether anybody else has one. A follower locks before it looks for the first time: what was committed
before the question and not announced, it sees; of what is committed after the lock, it is told. When a process dies,
the kernel lets its lock go.

The locks are those of an open file description (fcntl(2), F_OFD_SETLK): they know two logs of one process apart, and
outlive the closing of other descriptors of the file. They are no concern of `_sqlite_upkeep`'s flock on the same file.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

# struct flock of Linux (64-bit offsets): type, whence, start, length (0: all there is), process. On other systems the
# commands are not there; then nobody is asked, and every commit is announced.
_FLOCK: Final = "hhqqi4x"


def _flock(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


_SET: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
_ASK: Final[int | None] = getattr(fcntl, "F_OFD_GETLK", None)
_READ, _WRITE, _NONE = _flock(fcntl.F_RDLCK), _flock(fcntl.F_WRLCK), _flock(fcntl.F_UNLCK)


class Others:
    """Who follows the log at `path`. One for each log that is open; raises `OSError`."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path + "-upkeep", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._followers = 0  # here

    def follow_too(self) -> None:
        """Be seen by other processes' publishers, from now on until as many calls of `stop_following`."""
        self._followers += 1
        if self._followers == 1:
            self._lock(_READ)

    def stop_following(self) -> None:
        self._followers -= 1
        if self._followers == 0:
            self._lock(_NONE)

    def exist(self) -> bool:
        """Does anybody follow the log, apart from this one? True where that cannot be known."""
        if _ASK is None:
            return True
        try:
            return fcntl.fcntl(self._fd, _ASK, _WRITE)[:2] != _NONE[:2]
        except OSError:
            return True

    def close(self) -> None:
        """The lock goes with it, whoever still follows."""
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _lock(self, kind: bytes) -> None:
        # Where it fails, asking does, too, and nobody relies on it.
        if _SET is not None and self._fd >= 0:
            with suppress(OSError):
                fcntl.fcntl(self._fd, _SET, kind)
