"""Erasing a channel of a SQLite log: at once for everybody who reads it, and then without a trace in its files."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from ...events.markers import erased_marker
from ...events.model import Record, make_position
from ..base import Erased, LogUnavailable
from . import channels
from .file import connect, patiently, unavailable, wrote_nothing
from .rewrite import left_over, rewrite, sweep
from .schema import LATEST
from .write import insert

# How long to wait for another process that rewrites the log, seconds, and between two looks.
_LOCK_SECONDS: Final = 120.0
_LOCK_PAUSE: Final = 0.02

_LAST: Final = f"SELECT {LATEST}"

# ``erased``: the marker of the last erasure. ``rewritten``: no byte is left of those up to this marker.
_MARK: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_MARKED: Final = "SELECT value FROM meta WHERE name = ?"


def remove(path: str, channel: str, mark: int) -> Erased:
    """Remove a channel's records, and put the marker in their place, in one transaction.

    mark: all positions are above it (``place``).

    Raises ``LogUnavailable``.
    """
    committing = False
    try:
        # FULL: nobody is told of an erasure that a power cut could take back.
        with closing(connect(path, synchronous="FULL", wal_autocheckpoint=0, secure_delete=1)) as database:
            channels.catch_up(database)
            patiently(database.execute, "BEGIN IMMEDIATE")
            (last,) = database.execute(_LAST).fetchone()
            events = channels.erase(database, channel)
            position = max(make_position(time.time_ns() // 1_000_000), max(last, mark) + 1)
            marker = erased_marker(channel, position)
            insert(database, [Record(position, channel, marker.event, None, marker.data)])
            database.execute(_MARK, ("erased", position))
            committing = True
            patiently(database.execute, "COMMIT")
    except sqlite3.Error as error:
        raise unavailable(error, path, "unknown" if committing and not wrote_nothing(error) else "no") from error
    return Erased(events, position)


def let_go(path: str, erased: Erased) -> None:
    """Leave no byte of it in the file and its write-ahead log. Raises ``LogUnavailable``."""
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        with closing(connect(path, synchronous="NORMAL", wal_autocheckpoint=0)) as database:
            while _marked(database, "rewritten") < erased.through:
                if not alone(path, _rewrite, path, database):
                    if time.monotonic() > deadline:
                        raise LogUnavailable(f"another process has rewritten the log for {_LOCK_SECONDS:g} s")
                    time.sleep(_LOCK_PAUSE)
    except (sqlite3.Error, OSError, LogUnavailable) as error:
        reason = unavailable(error, path)
        raise LogUnavailable(f"{reason}; the events are erased, but bytes of them may be left") from error


def _rewrite(path: str, database: sqlite3.Connection) -> None:
    # Whatever was removed before the copy begins is not in it: also for others, who then need not do it again.
    through = _marked(database, "erased")
    rewrite(path)
    patiently(database.execute, _MARK, ("rewritten", through))


def _marked(database: sqlite3.Connection, name: str) -> int:
    found = patiently(database.execute, _MARKED, (name,)).fetchone()
    return 0 if found is None else int(found[0])


def tidy(database: sqlite3.Connection, path: str) -> None:
    """Remove what a process that was killed in the middle has left. Raises ``sqlite3.Error``, ``OSError``."""
    if left_over(database):
        alone(path, sweep, path)


def alone(path: str, work: Callable[..., object], *args: object) -> bool:
    """Do this work unless another process, or thread, is doing some; return whether it was done."""
    fd = os.open(path + "-erase", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        work(*args)
        return True
    finally:
        os.close(fd)  # which releases the lock
