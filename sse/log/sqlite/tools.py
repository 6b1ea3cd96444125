"""What one does to a whole SQLite log from outside of the service: see ``sse.log.tools``."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ..tools import Loader
from .build import Standing
from .file import connect, size_of_file, unavailable
from .load import SQLiteLoader, receipt


class SQLiteTools:
    """The tools for the log at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)

    def check_free(self) -> None:
        with self._translated(), closing(Standing(self._path)) as found:
            found.check_empty()
            found.check_unused()

    def receipt(self) -> int:
        with self._translated():
            if not size_of_file(self._path):
                return 0
            with closing(connect(self._path, query_only=1)) as database:
                return receipt(database)

    def loader(self, *, force: bool) -> Loader:
        return SQLiteLoader(self._path, force=force)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path, "no") from error
