"""Writes events into a SQLite log's table: many rows a statement, and NULL written out instead of bound.

Python's module releases and takes the interpreter lock for every step of a statement, and looks for an adapter for each
bound None: ``executemany`` with a thousand rows of five columns took three times as long as a few statements with as
many rows as fit and NULL written out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Final, TypeAlias

from ...events.model import Record

# Rows a statement, largest first. SQLite's own limit is 32,766 parameters; more than a few hundred rows gain nothing.
_STEPS: Final = (256, 64, 16, 4, 1)

_Columns: TypeAlias = tuple[int, ...]
_PLAIN: Final[_Columns] = (0, 1, 4)  # position, channel, data
_TYPED: Final[_Columns] = (0, 1, 2, 4)
_WHOLE: Final[_Columns] = (0, 1, 2, 3, 4)
_event, _retry = itemgetter(2), itemgetter(3)
_NONE: Final = frozenset({None})
_values: Final = {columns: itemgetter(*columns) for columns in (_PLAIN, _TYPED, _WHOLE)}

_ONE: Final = "INSERT INTO events VALUES (?, ?, NULL, NULL, ?)"


@cache
def _statement(columns: _Columns, rows: int) -> str:
    row = ", ".join("?" if column in columns else "NULL" for column in _WHOLE)
    return f"INSERT INTO events VALUES {', '.join([f'({row})'] * rows)}"


def insert(writer: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Insert these rows, in ascending order, within the caller's transaction. Raises ``sqlite3.Error``."""
    if len(records) == 1:
        position, channel, event, retry, data = records[0]
        if event is None and retry is None:
            writer.execute(_ONE, (position, channel, data))
            return
    columns = _columns(records)
    values, done, left = _values[columns], 0, len(records)
    for step in _STEPS:
        while left >= step:
            rows = records[done : done + step]
            writer.execute(_statement(columns, step), tuple(chain.from_iterable(map(values, rows))))
            done += step
            left -= step


def _columns(records: Sequence[Record]) -> _Columns:
    """Find the columns that at least one of these records uses."""
    if not _NONE.issuperset(map(_retry, records)):
        return _WHOLE
    return _PLAIN if _NONE.issuperset(map(_event, records)) else _TYPED
