"""Tells whether a log's file was replaced by a restored backup.

Restoring a backup loses the events given out since, and the file does not show it: it is whole, only older. So a line
beside it, in ``<path>-upkeep``, records which file was the log (inode number and time of birth) and the newest position
that it had about a second ago. Each opening compares. These set the log back:

    another file          a copy in its place, alone or with its directory
    an earlier end        a copy written into the same file; or a power cut that took the newest commits
    no line beside it     a copy in a place of its own

Then the log is *marked*, like a Redis log that has lost its end: the mark lies above all positions given out before,
new ones lie above the mark, and clients that resume from below it are told that events may be missing. A needless
warning costs a client little, so anything unclear counts as a setback. Only an empty ``-upkeep`` does not: older
versions wrote no line.

A disk that was set back as a whole (a volume's snapshot) goes unnoticed: file, birth and line are then all the
backup's. After restoring one, remove ``<path>-upkeep``.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import struct
import time
from typing import Final, NamedTuple

from ...events.model import make_position
from .schema import LATEST

logger = logging.getLogger("headwater.log.sqlite")

_LATEST: Final = f"SELECT {LATEST}, ifnull((SELECT value FROM meta WHERE name = 'lost'), 0)"
_LOST: Final = "SELECT value FROM meta WHERE name = 'lost'"
_MARK: Final = "INSERT OR REPLACE INTO meta VALUES ('lost', ?)"

# linux/stat.h: where the time of birth is in a struct statx, its bit in stx_mask, and "from the working directory".
_BIRTH_AT, _BIRTH, _STATX_BTIME, _AT_FDCWD = 80, "qI", 0x800, -100
_WIDTH: Final = 80  # characters of the line, so that a shorter one covers a longer one


class Note(NamedTuple):
    """The line beside the file. birth: ns, 0 if the system does not know it."""

    inode: int
    birth: int
    latest: int


class Standing(NamedTuple):
    """A log and the line beside it, compared.

    latest: the log's newest position.
    noted: what ``-upkeep`` says.
    mark: the mark of a loss, 0 for none.
    setback: why the log counts as set back, None if it does not.
    """

    latest: int
    noted: Note | None
    mark: int
    setback: str | None


def standing(database: sqlite3.Connection, path: str) -> Standing:
    """Compare a log's file with the line beside it. Raises ``sqlite3.Error``, ``OSError``."""
    newest, mark = database.execute(_LATEST).fetchone()
    latest, noted = max(newest, mark), look(path)
    return Standing(latest, noted, mark, _setback(noted, path, latest))


def lost(database: sqlite3.Connection) -> int:
    """Return the mark of a loss, 0 for none. Raises ``sqlite3.Error``."""
    found = database.execute(_LOST).fetchone()
    return 0 if found is None else int(found[0])


def mark(writer: sqlite3.Connection, path: str, found: Standing) -> int:
    """Mark a log that was set back; commit the caller's transaction; return the mark.

    Raises ``sqlite3.Error``, ``OSError``.
    """
    given_out = found.latest if found.noted is None else max(found.latest, found.noted.latest)
    position = max(make_position(time.time_ns() // 1_000_000), given_out + 1)
    writer.execute(_MARK, (position,))
    # First the line, so that other processes do not mark the log again. A process killed in between leaves a log that
    # ends below its line, which is a setback.
    note(path, identity(path), position)
    writer.execute("COMMIT")
    logger.warning("%s: %s. Clients that resume are told that events may be missing", path, found.setback)
    return position


def _setback(found: Note | None, path: str, latest: int) -> str | None:
    """Return why the log counts as set back, None if it does not."""
    if found is None:
        try:
            empty = os.stat(_beside(path)).st_size == 0
        except FileNotFoundError:
            return "it was not here before"
        return None if empty else f"{_beside(path)} cannot be read"
    if (found.inode, found.birth) != identity(path):
        return "another file was here before"
    return "it was further on before" if found.latest > latest else None


def look(path: str) -> Note | None:
    """Read the line beside this file; None if there is none, or it cannot be read."""
    try:
        with open(_beside(path), encoding="ascii") as file:
            inode, birth, latest = map(int, file.read(2 * _WIDTH).split())
    except (FileNotFoundError, ValueError):
        return None
    return Note(inode, birth, latest)


def note(path: str, file: tuple[int, int], latest: int) -> None:
    """Write the line: the file's ``identity`` and its newest position. Raises ``OSError``."""
    line = " ".join(map(str, (*file, latest))).ljust(_WIDTH - 1) + "\n"
    fd = os.open(_beside(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(fd, line.encode("ascii"), 0)
    finally:
        os.close(fd)  # the locks on this file belong to other descriptors, and stay


def identity(path: str) -> tuple[int, int]:
    """Return inode number and time of birth, ns.

    An inode number alone is soon reused for another file, and the device number changes with the mount.
    """
    return os.stat(path).st_ino, _birth(path)


def _birth(path: str) -> int:
    statx = getattr(ctypes.CDLL(None), "statx", None)  # statx(2); os.stat does not have the time of birth on Linux
    found = ctypes.create_string_buffer(256)
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, ctypes.c_uint(_STATX_BTIME), found) != 0:
        return 0
    if not struct.unpack_from("I", found)[0] & _STATX_BTIME:
        return 0
    seconds, ns = struct.unpack_from(_BIRTH, found, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(ns)


def _beside(path: str) -> str:
    return path + "-upkeep"
