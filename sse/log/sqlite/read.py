"""Reading a SQLite log: the queries, and pages of rows that are bounded in size."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Final

from ...events.model import Record

# Channels whose index ranges are merged; beyond it the table is read in order and filtered. SQLite's own
# limit on the terms of a compound is 500, and preparing one takes 15 µs a term.
_MERGE_MOST: Final = 128

# Rows fetched between two checks of their size: growing, since rows beyond the limit may be large and unneeded.
_CHUNK_FIRST, _CHUNK_MOST = 16, 512

# Record(*row), without a Python call for each.
record: Callable[[tuple[Any, ...]], Record] = partial(tuple.__new__, Record)
_data: Final = itemgetter(4)


def size_of(rows: Iterable[tuple[Any, ...]]) -> int:
    """Count the characters of data in these rows or records."""
    return sum(map(len, map(_data, rows)))


@lru_cache(maxsize=256)
def _statement(what: str, channels: int | None, order: str) -> str:
    """Build the query for events after a position, in order: of all channels, or of ``channels`` many."""
    tail = f"ORDER BY position {order} LIMIT ? OFFSET ?"
    if channels is None:
        return f"SELECT {what} FROM events WHERE position > ? {tail}"
    if channels > _MERGE_MOST:
        condition = f"position > ? AND +channel IN ({','.join('?' * channels)})"
        return f"SELECT {what} FROM events WHERE {condition} {tail}"
    # SQLite merges the terms of a compound as it goes, each a walk along the index, and stops at the limit;
    # for ``channel IN (…)`` it would collect and sort all that these channels hold.
    one = f"SELECT {what} FROM events INDEXED BY events_by_channel WHERE channel = ? AND position > ?"
    return f"{' UNION ALL '.join([one] * channels)} {tail}"


def select(what: str, channels: Collection[str] | None, after: int, order: str) -> tuple[str, tuple[str | int, ...]]:
    if channels is None:
        return _statement(what, None, order), (after,)
    names = set(channels)
    if len(names) > _MERGE_MOST:
        return _statement(what, len(names), order), (after, *names)
    return _statement(what, len(names), order), tuple(value for name in names for value in (name, after))


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
