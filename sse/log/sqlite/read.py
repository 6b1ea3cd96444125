"""Reading a SQLite log: the queries, and pages of rows that are bounded in size."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from ...events.model import Record
from ...events.patterns import is_reserved, split

# Channels whose index ranges are merged; beyond it the table is read in order and filtered. SQLite's own
# limit on the terms of a compound is 500, and preparing one takes 15 µs a term.
_MERGE_MOST: Final = 128

# Sorts behind every name: the last of all code points.
_BEHIND: Final = "\U0010ffff"

# Rows fetched between two checks of their size: growing, since rows beyond the limit may be large and unneeded.
_CHUNK_FIRST, _CHUNK_MOST = 16, 512

# Record(*row), without a Python call for each.
record: Callable[[tuple[Any, ...]], Record] = partial(tuple.__new__, Record)
_data: Final = itemgetter(4)


def size_of(rows: Iterable[tuple[Any, ...]]) -> int:
    """Count the characters of data in these rows or records."""
    return sum(map(len, map(_data, rows)))


def ranges(prefix: str) -> Sequence[tuple[str, str]]:
    """Return where the channels with this prefix are, without reserved ones: each from a name on, and below another.

    Names are compared as the bytes of their UTF-8, which sorts as code points do.
    """
    if prefix == "":
        return ("", "_"), ("`", _BEHIND)
    return () if is_reserved(prefix) else ((prefix, prefix + _BEHIND),)


@lru_cache(maxsize=256)
def _statement(what: str, names: int | None, spans: int, order: str) -> str:
    """Build the query for events after a position, in order: of all channels, or of so many names and ranges."""
    tail = f"ORDER BY position {order} LIMIT ? OFFSET ?"
    if names is None:
        return f"SELECT {what} FROM events WHERE position > ? {tail}"
    if spans or not 0 < names <= _MERGE_MOST:
        wanted = [f"+channel IN ({','.join('?' * names)})", *["(+channel >= ? AND +channel < ?)"] * spans]
        return f"SELECT {what} FROM events WHERE position > ? AND ({' OR '.join(wanted)}) {tail}"
    # SQLite merges the terms of a compound as it goes, each a walk along the index, and stops at the limit;
    # for ``channel IN (…)`` it would collect and sort all that these channels hold.
    one = f"SELECT {what} FROM events INDEXED BY events_by_channel WHERE channel = ? AND position > ?"
    return f"{' UNION ALL '.join([one] * names)} {tail}"


def select(what: str, channels: Collection[str] | None, after: int, order: str) -> tuple[str, tuple[str | int, ...]]:
    """Return the query for events of these channels after a position, and its values, but for limit and offset."""
    if channels is None:
        return _statement(what, None, 0, order), (after,)
    names, prefixes = split(channels)
    spans = [span for prefix in prefixes for span in ranges(prefix)]
    statement = _statement(what, len(names), len(spans), order)
    if spans or not 0 < len(names) <= _MERGE_MOST:
        return statement, (after, *names, *chain.from_iterable(spans))
    return statement, tuple(value for name in names for value in (name, after))


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
