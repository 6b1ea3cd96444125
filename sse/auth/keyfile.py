"""Files with keys, read again when they change: rotation without a restart.

A Secret that Kubernetes mounts is replaced by swapping a symbolic link, an editor renames a new file into
place, a script writes over the old one: all three change the file's identity (device, inode, size,
modification and change time), which is looked at no more than once a second. A file that is missing or
damaged when it is looked at changes nothing: the keys that were read before stay, and a warning says so,
because half a second of a bad file must not lock everybody out, and never must it open anything.
"""

import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from .decision import BadAuthSetting

logger = logging.getLogger("headwater.auth")

Entry = TypeVar("Entry")

# Seconds between two looks: a system call a second is nothing, one for each of 10,000 requests a second is
# not.
CHECK_INTERVAL: Final = 1.0

# A file that was modified this recently (s) is read again at the next look although it looks the same: a
# second write within the clock tick of the first (4 ms on many systems) leaves no trace in its times. (git
# calls such a file "racily clean".)
SETTLED_AFTER: Final = 2.0

# Far above any key set, far below what could hurt: somebody's log file named by mistake.
MAX_FILE_BYTES: Final = 1 << 20

# Contents that are remembered as still valid; more rotations than this within the grace period drop the
# oldest.
MAX_RETIRED: Final = 4

_Identity = tuple[int, int, int, int, int]


class KeyFile(Generic[Entry]):
    """The entries of one file, as it is now, and for `grace` seconds after a change as it was before.

    `parse` turns the content into entries and raises ValueError, with a message that shows none of the
    content. `grace` = 0: what is taken out of the file is invalid within `CHECK_INTERVAL`.

    Raises BadAuthSetting when the file cannot be read or parsed at the start. Thread-safe; a look that is due
    costs one `stat`, and only a change is read.
    """

    def __init__(
        self,
        setting: str,
        path: str | os.PathLike[str],
        parse: Callable[[bytes], Sequence[Entry]],
        *,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._setting = setting
        self._path = Path(path)
        self._parse = parse
        self._grace = grace
        self._clock = clock
        self._lock = threading.Lock()
        self._retired: deque[tuple[float, tuple[Entry, ...]]] = deque(maxlen=MAX_RETIRED)
        self._problem = ""
        try:
            self._identity, self._content = self._read()
            self._current = tuple(parse(self._content))
        except (OSError, ValueError) as error:
            raise BadAuthSetting(setting, f"{self._path}: {_reason(error)}") from None
        self._next_look = clock() + CHECK_INTERVAL

    def entries(self) -> tuple[Entry, ...]:
        """Everything that is valid now, the newest first."""
        now = self._clock()
        # Whoever finds the look due does it; the others go on with what there is instead of queueing up.
        if now >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._next_look = now + CHECK_INTERVAL
                self._look(now)
            finally:
                self._lock.release()
        if not self._retired:
            return self._current
        valid = [entries for until, entries in tuple(self._retired) if now < until]
        return sum(valid, self._current)

    def _look(self, now: float) -> None:
        try:
            seen = self._identify(os.stat(self._path))
            if seen is not None and seen == self._identity:
                return
            identity, content = self._read()
            if content != self._content:
                entries = tuple(self._parse(content))
                if self._grace > 0:
                    self._retired.appendleft((now + self._grace, self._current))
                self._current, self._content = entries, content
                logger.info("%s has changed: keys read again (%d now)", self._setting, len(entries))
            self._identity, self._problem = identity, ""
        except (OSError, ValueError) as error:
            problem = _reason(error)
            if problem != self._problem:  # one line for each new trouble, not one a second
                self._problem = problem
                logger.warning("%s has changed and cannot be used (%s): keys stay", self._setting, problem)

    def _read(self) -> tuple[_Identity | None, bytes]:
        """Identity and content. The identity is taken first: a change in between is seen at the next look."""
        status = os.stat(self._path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")  # a FIFO would block for ever
        with open(self._path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        return self._identify(status), content

    @staticmethod
    def _identify(status: os.stat_result) -> _Identity | None:
        """None for a file that was touched so recently that another change could go unseen."""
        if abs(time.time() - max(status.st_mtime, status.st_ctime)) < SETTLED_AFTER:
            return None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
