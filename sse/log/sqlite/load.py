"""Imports into a SQLite log: a new file is filled with given records, then put in place (``build``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from ...events.model import Record
from ..tools import Marks
from .build import Build
from .file import unavailable
from .schema import complete
from .write import insert

_CLOSE: Final = "INSERT OR REPLACE INTO closed VALUES (?, ?)"
_ERASE: Final = "DELETE FROM events WHERE channel = ? AND position < ?"
_OPEN: Final = "DELETE FROM closed WHERE channel = ? AND position < ?"
_MARK: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_RECEIPT: Final = "imported"


class SQLiteLoader:
    """See ``tools.Loader``. force: even if the log holds something."""

    def __init__(self, path: str, *, force: bool) -> None:
        self._path = path
        self._force = force
        with self._translated():
            self._build = Build(path)
            self._build.create()
            complete(self._build.database)

    def add(self, records: Sequence[Record]) -> None:
        with self._translated():
            insert(self._build.database, records)

    def close_channels(self, closed: Mapping[str, int]) -> None:
        with self._translated():
            self._build.database.executemany(_CLOSE, closed.items())

    def erase(self, channel: str, below: int) -> None:
        with self._translated():
            if self._build.database.execute(_ERASE, (channel, below)).rowcount:
                self._build.leave_no_trace()
            self._build.database.execute(_OPEN, (channel, below))

    def finish(self, marks: Marks, *, tell: bool, receipt: int = 0) -> None:
        values = {
            "trimmed": marks.gone or marks.began,
            "began": marks.began,
            "coarse": marks.gone,
            "lost": marks.lost,
            _RECEIPT: receipt,
        }
        with self._translated():
            self._build.database.executemany(_MARK, values.items())
            self._build.put_in_place(tell=tell, force=self._force)

    def close(self) -> None:
        with self._translated():
            self._build.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path, "no") from error


def receipt(database: sqlite3.Connection) -> int:
    """Return the receipt of the import that made this log, 0 for none."""
    found = database.execute("SELECT value FROM meta WHERE name = ?", (_RECEIPT,)).fetchone()
    return 0 if found is None else int(found[0])
