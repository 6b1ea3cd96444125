"""What one does to a whole log from outside of the service: import, backup, restore, check.

An engine's tools are made for a URL (``sse.log.open_tools``); nothing is opened before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from ..events.model import Record
from .base import LogError

#: Called with the number of records so far, and their share of all, 0 to 1.
Copying: TypeAlias = Callable[[int, float], object]


class Occupied(LogError):
    """The log is in use, or holds something, and may not be replaced. The message says what. Nothing was changed."""


class Marks(NamedTuple):
    """What a log is, besides its records, as in ``Bounds``.

    began: 0 if that is unknown.
    gone: records up to here may be missing; 0 for none.
    lost: the log's own mark of a loss, 0 for none.
    """

    began: int
    gone: int
    lost: int


class Report(NamedTuple):
    """What a check has found.

    log: which log it is, and how large.
    problems: what is wrong with it, a sentence each.
    remarks: what is worth knowing, but no fault.
    """

    log: str
    problems: list[str]
    remarks: list[str]


class Loader(Protocol):
    """A log in the making, which nobody sees before ``finish``. What an interrupted one has left is removed first."""

    def add(self, records: Sequence[Record]) -> None:
        """Add records with their positions, which ascend from call to call."""
        ...

    def close_channels(self, closed: Mapping[str, int]) -> None:
        """Note that channels are closed, with their closing positions."""
        ...

    def erase(self, channel: str, below: int) -> None:
        """Remove a channel's records below this position, and open it."""
        ...

    def finish(self, marks: Marks, *, tell: bool, receipt: int = 0) -> None:
        """Put it into the log's place. Notes of the log that was there stay.

        tell: mark the log, so that every client with a cursor from before now is told that events may be missing.
        receipt: what ``Tools.receipt`` shall return, below 2**56.

        Raises ``Occupied``, ``LogUnavailable``.
        """
        ...

    def close(self) -> None:
        """Remove it, if it was not put in place."""
        ...


class Tools(Protocol):
    """The tools for the log at one URL. Any method may raise ``LogUnavailable`` and ``LogRefused``."""

    def check_free(self) -> None:
        """Raise ``Occupied`` if there is a log that is in use or holds something."""
        ...

    def receipt(self) -> int:
        """Return the receipt of the import that made this log, 0 for none."""
        ...

    def backup(self, file: str, progress: Copying) -> int | None:
        """Write a copy of the log to a file, while the log is in use; return the number of its records.

        It has every event that was stored before it began. Whatever the file was is replaced once the copy is whole.
        progress: called with the number of records so far, and their share of all.
        Return None if an export is the only backup that the engine has.
        """
        ...

    def restore(self, file: str, progress: Copying, *, force: bool) -> int | None:
        """Make the log from such a copy, and mark it (``Loader.finish``); return the number of its records.

        force: even if the log is in use, or holds something. Return None for a file that is no such copy.
        """
        ...

    def check(self, step: Callable[[str], object]) -> Report:
        """Say whether the log is sound. It may be in use, and is not changed. step: told what is looked at."""
        ...

    def loader(self, *, force: bool) -> Loader:
        """Begin a new log.

        force: even if there is a log that is in use, or holds something.
        """
        ...
