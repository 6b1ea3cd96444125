"""What one does to a whole SQLite log from outside of the service: see ``sse.log.tools``."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from ..base import LogRefused, LogUnavailable
from ..tools import Copying, Loader, Report
from .build import Build, Standing
from .copy import copy, reading
from .file import DAMAGE, code_of, connect, is_sqlite, size_of_file, unavailable
from .load import SQLiteLoader, receipt
from .verify import verify


class SQLiteTools:
    """The tools for the log at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)

    def check_free(self) -> None:
        with self._translated(), closing(Standing(self._path)) as found:
            found.check_empty()
            if found.in_use():
                raise found.occupied()

    def receipt(self) -> int:
        with self._translated():
            if not size_of_file(self._path):
                return 0
            with closing(connect(self._path, query_only=1)) as database:
                return receipt(database)

    def backup(self, file: str, progress: Copying) -> int | None:
        self._check_other(file)
        with self._translated(), closing(Build(os.path.abspath(file))) as build:
            count = self._copy(self._path, build, progress)
            build.seal()
            build.put_at(mode=0o600)
            return count

    def restore(self, file: str, progress: Copying, *, force: bool) -> int | None:
        self._check_other(file)
        with self._translated():
            if not is_sqlite(file):
                return None
            with closing(Build(self._path)) as build:
                count = self._copy(file, build, progress)
                build.put_in_place(tell=True, force=force)
                return count

    def _check_other(self, file: str) -> None:
        if os.path.exists(file) and os.path.exists(self._path) and os.path.samefile(file, self._path):
            raise LogRefused(f"{file} is the log itself")

    @staticmethod
    def _copy(path: str, build: Build, progress: Copying) -> int:
        build.create()
        try:
            with reading(path) as source:
                return copy(source, build.database, progress)
        except sqlite3.DatabaseError as error:
            if code_of(error) in DAMAGE:
                raise LogRefused(f"{path}: damaged: {error}") from error
            raise

    def check(self, step: Callable[[str], object]) -> Report:
        with self._translated():
            if not size_of_file(self._path):
                raise LogUnavailable(f"there is no log at {self._path}")
            try:
                with reading(self._path) as database:
                    return verify(database, self._path, step)
            except sqlite3.DatabaseError as error:
                if code_of(error) not in DAMAGE:
                    raise
                return Report(self._path, [f"SQLite: {error}"], [])

    def loader(self, *, force: bool) -> Loader:
        return SQLiteLoader(self._path, force=force)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path, "no") from error
