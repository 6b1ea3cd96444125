"""Reading rows of a SQLite log, in pages that are bounded in size."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from operator import itemgetter
from typing import Any, Final

from ...events.model import Record

# Rows fetched between two checks of their size: growing, since rows beyond the limit may be large and unneeded.
_CHUNK_FIRST, _CHUNK_MOST = 16, 512

# Record(*row), without a Python call for each.
record: Callable[[tuple[Any, ...]], Record] = partial(tuple.__new__, Record)
_data: Final = itemgetter(4)


def size_of(rows: Iterable[tuple[Any, ...]]) -> int:
    """Count the characters of data in these rows or records."""
    return sum(map(len, map(_data, rows)))


def one(reader: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
    with closing(reader.execute(statement, values)) as cursor:
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


def all_rows(reader: sqlite3.Connection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    with closing(reader.execute(statement, values)) as cursor:
        return cursor.fetchall()


def page(reader: sqlite3.Connection, statement: str, values: Sequence[Any], max_chars: int) -> list[Record]:
    """Read rows, up to and including the one that brings their data to ``max_chars`` characters."""
    found: list[Record] = []
    rows = _CHUNK_FIRST
    with closing(reader.execute(statement, values)) as cursor:
        while chunk := cursor.fetchmany(rows):
            size = size_of(chunk)
            if size >= max_chars:
                for row in chunk:
                    found.append(record(row))
                    max_chars -= len(row[4])
                    if max_chars <= 0:
                        return found
            found.extend(map(record, chunk))
            max_chars -= size
            rows = min(2 * rows, _CHUNK_MOST)
    return found
