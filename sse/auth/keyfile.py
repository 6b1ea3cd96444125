"""Key files, read again when they change, so that keys can be rotated without a restart.

To update a Secret, Kubernetes swaps a symbolic link; an editor renames a new file into place; a script overwrites the
old one. All three change the file's identity (device, inode, size, modification and change time), which we check at
most once a second. If the file is then missing or invalid, we keep the keys that we have and log a warning: a bad
file must lock nobody out for a moment, and must never let anybody in.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from ..runtime.cooperation import offload
from ..runtime.files import read_regular_file, reason
from .decision import BadAuthSetting

logger = logging.getLogger("headwater.auth")

Entry = TypeVar("Entry")

# Seconds between two checks. One system call a second costs nothing; one for each of 10,000 requests a second would.
CHECK_INTERVAL: Final = 1.0

# Seconds. A file modified more recently is read again at the next check even if it looks the same: a second write
# within the file system's clock tick (often 4 ms) leaves no trace in its times. (Git calls this "racily clean".)
SETTLED_AFTER: Final = 2.0

# Far larger than any key set; protects us from, say, a log file named by mistake.
MAX_FILE_BYTES: Final = 1 << 20

# How many earlier contents may be valid at once. More rotations within the grace period drop the oldest.
MAX_RETIRED: Final = 4

_Identity = tuple[int, int, int, int, int]


class KeyFile(Generic[Entry]):
    """The entries of one file; after a change, the earlier ones stay valid for ``grace`` seconds.

    parse: turns the content into entries. Raises ValueError, whose message shows none of the content.
    grace: 0 makes entries that are removed from the file invalid within CHECK_INTERVAL.

    Raises BadAuthSetting if the file cannot be read or parsed at the start. Thread-safe.
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
            raise BadAuthSetting(setting, f"{self._path}: {reason(error)}") from None
        self._next_check = clock() + CHECK_INTERVAL

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries that are valid now, the newest first."""
        now = self._clock()
        # One caller checks the file; meanwhile the others use the entries that we have.
        if now >= self._next_check and self._lock.acquire(blocking=False):
            try:
                self._next_check = now + CHECK_INTERVAL
                self._check(now)
            finally:
                self._lock.release()
        if not self._retired:
            return self._current
        valid = [entries for until, entries in tuple(self._retired) if now < until]
        return sum(valid, self._current)

    def _check(self, now: float) -> None:
        try:
            changed = offload(self._read_if_changed)  # its disk may be slow, and this is a request's path
            if changed is None:
                return
            identity, content = changed
            if content != self._content:
                entries = tuple(self._parse(content))
                if self._grace > 0:
                    self._retired.appendleft((now + self._grace, self._current))
                self._current, self._content = entries, content
                logger.info("%s has changed: %d keys read", self._setting, len(entries))
            self._identity, self._problem = identity, ""
        except (OSError, ValueError) as error:
            problem = reason(error)
            if problem != self._problem:  # one line for each new problem, not one a second
                self._problem = problem
                logger.warning(
                    "%s has changed and cannot be used (%s): the earlier keys stay valid", self._setting, problem
                )

    def _read_if_changed(self) -> tuple[_Identity | None, bytes] | None:
        seen = self._identify(os.stat(self._path))
        return None if seen is not None and seen == self._identity else self._read()

    def _read(self) -> tuple[_Identity | None, bytes]:
        # The identity is older than the content, so the next check sees a change in between.
        status, content = read_regular_file(self._path, MAX_FILE_BYTES)
        return self._identify(status), content

    @staticmethod
    def _identify(status: os.stat_result) -> _Identity | None:
        """Return the file's identity; None if it changed so recently that another change could go unnoticed."""
        if abs(time.time() - max(status.st_mtime, status.st_ctime)) < SETTLED_AFTER:
            return None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
