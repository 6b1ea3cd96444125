"""Which rows of a SQLite log some channels have: the queries, so that they read no more of it than they must.

A channel's rows are found by the index, and SQLite merges those of several channels. What a pattern matches is looked
up in ``channels`` first, as far as records are counted there; the few that are newer are filtered. If too many
channels match, the log is read in order and filtered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final, TypeAlias

from ...events.model import Record
from ...events.patterns import is_reserved, split
from .read import all_rows, one, page

# Channels whose index ranges are merged; beyond it the table is read in order and filtered. SQLite's own
# limit on the terms of a compound is 500, and preparing one takes 15 µs a term.
_MERGE_MOST: Final = 128

# Sorts behind every name: the last of all code points.
_BEHIND: Final = "\U0010ffff"

_Query: TypeAlias = tuple[str, tuple[str | int, ...]]


def records(
    reader: sqlite3.Connection,
    channels: Collection[str] | None,
    after: int,
    order: str,
    limit: int,
    max_chars: int,
) -> list[Record]:
    """Return a page of the records of these channels. order: ASC or DESC. See ``Log.read``."""
    statement, values = _select(reader, "*", channels, after, order)
    return page(reader, statement, (*values, limit, 0), max_chars)


def floor(reader: sqlite3.Connection, channels: Collection[str] | None, after: int, keep: int) -> int | None:
    """See ``Log.floor``."""
    statement, values = _select(reader, "position", channels, after, "DESC")
    row = one(reader, statement, (*values, 1, keep))
    return None if row is None else int(row[0])


def ranges(prefix: str) -> Sequence[tuple[str, str]]:
    """Return where the channels with this prefix are, without reserved ones: each from a name on, and below another.

    Names are compared as the bytes of their UTF-8, which sorts as code points do.
    """
    if prefix == "":
        return ("", "_"), ("`", _BEHIND)
    return () if is_reserved(prefix) else ((prefix, prefix + _BEHIND),)


def _select(
    reader: sqlite3.Connection, what: str, channels: Collection[str] | None, after: int, order: str
) -> _Query:
    """Return the query for events after a position, and its values, but for limit and offset."""
    if channels is None:
        return _in_order(what, order), (after,)
    names, prefixes = split(channels)
    spans = [span for prefix in prefixes for span in ranges(prefix)]
    known, counted = _known(reader, spans) if spans else (names, 0)
    if len(names | known) > _MERGE_MOST:
        return _filtered(what, len(names), len(spans), order), (after, *names, *chain(*spans))
    merged = names | known
    values: list[str | int] = []
    for name in merged:
        values += (name, after)
    if spans or not merged:
        values += (max(after, counted), *chain(*spans), *merged)
    return _merged(what, len(merged), len(spans), order), tuple(values)


def _known(reader: sqlite3.Connection, spans: Sequence[tuple[str, str]]) -> tuple[frozenset[str], int]:
    """Return the channels in these ranges that have records, one too many at most, and how far records are counted."""
    (_, counted), *found = all_rows(reader, _known_in(len(spans)), tuple(chain(*spans)))
    return frozenset(name for name, _ in found), counted


@lru_cache(maxsize=16)
def _known_in(spans: int) -> str:
    return (
        "SELECT NULL, value FROM meta WHERE name = 'counted' UNION ALL SELECT channel, NULL FROM (SELECT channel FROM"
        f" channels WHERE ({' OR '.join(['(channel >= ? AND channel < ?)'] * spans)}) AND records > 0"
        f" LIMIT {_MERGE_MOST + 1})"
    )


@lru_cache(maxsize=16)
def _in_order(what: str, order: str) -> str:
    return f"SELECT {what} FROM events WHERE position > ? ORDER BY position {order} LIMIT ? OFFSET ?"


@lru_cache(maxsize=64)
def _filtered(what: str, names: int, spans: int, order: str) -> str:
    """Read all events, and leave out those of other channels."""
    wanted = [f"+channel IN ({','.join('?' * names)})", *["(+channel >= ? AND +channel < ?)"] * spans]
    return (
        f"SELECT {what} FROM events WHERE position > ? AND ({' OR '.join(wanted)})"
        f" ORDER BY position {order} LIMIT ? OFFSET ?"
    )


@lru_cache(maxsize=256)
def _merged(what: str, names: int, spans: int, order: str) -> str:
    """Read the events of these names, and of those in these ranges that are new and of none of these names."""
    # SQLite merges the terms of a compound as it goes, each a walk along the index, and stops at the limit;
    # for ``channel IN (…)`` it would collect and sort all that these channels hold.
    terms = [f"SELECT {what} FROM events INDEXED BY events_by_channel WHERE channel = ? AND position > ?"] * names
    if spans or not names:
        wanted = " OR ".join(["(+channel >= ? AND +channel < ?)"] * spans) or "0"
        others = f"+channel NOT IN ({','.join('?' * names)})"
        terms.append(f"SELECT {what} FROM events WHERE position > ? AND ({wanted}) AND {others}")
    return f"{' UNION ALL '.join(terms)} ORDER BY position {order} LIMIT ? OFFSET ?"
