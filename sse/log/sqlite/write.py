"""How events get into a SQLite log's table: many rows a statement, and no value bound that is not there.

Python's module gives up the interpreter lock and takes it again for every step of a statement, and for each bound None
it looks for an adapter: a thousand rows of five columns by ``executemany`` took three times as long as a few statements
that have as many rows as fit, and NULL written out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Final, TypeAlias

from ...events.model import Record

# Rows a statement, largest first. SQLite's own limit is 32,766 parameters; beyond a few hundred rows nothing is gained.
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
    """Add these rows, in ascending order, within a transaction of the caller's. Raises `sqlite3.Error`."""
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
    """Those that some of these have."""
    if not _NONE.issuperset(map(_retry, records)):
        return _WHOLE
    return _PLAIN if _NONE.issuperset(map(_event, records)) else _TYPED
