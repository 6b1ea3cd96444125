"""Publishes that wait for a SQLite log, and the transaction that stores a group of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import Final, Literal

from ...events.markers import end_marker
from ...events.model import Event, Record, make_position
from ...events.trace import Trace
from ..base import ChannelClosed, IdempotencyConflict, Stored
from .channels import closed
from .read import record
from .schema import LATEST
from .write import insert

# The newest position, and whether any channel is closed: only then are the names looked up.
_LAST: Final = f"SELECT {LATEST}, EXISTS (SELECT 1 FROM closed)"
_KNOWN: Final = "SELECT digest, first, count FROM publishes WHERE key = ?"
_REMEMBER: Final = "INSERT INTO publishes VALUES (?, ?, ?, ?, ?)"
_TRACE: Final = "INSERT INTO traces VALUES (?, ?, ?)"
_CLOSE: Final = "INSERT INTO closed VALUES (?, ?)"


class Publish:
    """One call of ``append`` in the queue. It is done once it has positions or an error."""

    __slots__ = ("close", "digest", "error", "events", "key", "positions", "trace")

    def __init__(
        self, events: Sequence[Event], key: str | None, digest: bytes, trace: str | None, close: Collection[str] = ()
    ) -> None:
        self.events = events
        self.key = key
        self.digest = digest
        self.trace = trace
        self.close = sorted(set(close)) if close else ()
        self.positions: list[int] | None = None
        self.error: Exception | None = None


class Transaction:
    """One transaction: the publishes in it, and what became of them.

    results: positions or an error for each publish of ``group``, in the same order.
    records, traces: what it adds to the log after the position ``previous``.
    stored: "unknown" while it commits.
    """

    __slots__ = ("group", "previous", "records", "results", "stored", "traces")

    def __init__(self) -> None:
        self.group: list[Publish] = []
        self.results: list[list[int] | Exception] = []
        self.previous = 0
        self.records: list[Record] = []
        self.traces: list[Trace] = []
        self.stored: Stored | Literal["yes"] = "no"


def store(writer: sqlite3.Connection, work: Transaction, mark: int) -> None:
    """Write the rows of the transaction's publishes, and note each one's result should it commit.

    mark: all positions are above it (``place``).
    """
    results, records = work.results, work.records
    now_ms = time.time_ns() // 1_000_000
    last, any_closed = writer.execute(_LAST).fetchone()
    work.previous = last = max(last, mark)
    position = max(make_position(now_ms), last + 1)
    for publish in work.group:
        if publish.key is not None:
            known = writer.execute(_KNOWN, (publish.key,)).fetchone()
            if known is not None:
                digest, first, count = known
                if digest == publish.digest:
                    results.append(list(range(first, first + count)))
                else:
                    results.append(IdempotencyConflict("this idempotency key came with another content"))
                continue
        if any_closed:
            refused = _first_closed(writer, publish)
            if refused is not None:
                results.append(ChannelClosed(refused))
                continue
        events = publish.events
        if publish.close:
            ends = range(position + len(events), position + len(events) + len(publish.close))
            writer.executemany(_CLOSE, zip(publish.close, ends, strict=True))
            events = [*events, *map(end_marker, publish.close)]
            any_closed = True
        if publish.key is not None:
            writer.execute(_REMEMBER, (publish.key, publish.digest, position, len(events), now_ms))
        first, position = position, position + len(events)
        positions = list(range(first, position))
        rows = zip(positions, events, strict=True)
        records += [record((position, e.channel, e.event, e.retry, e.data)) for position, e in rows]
        results.append(positions)
        if publish.trace is not None:
            work.traces.append(Trace(first, position - 1, publish.trace))
            writer.execute(_TRACE, work.traces[-1])
    if records:
        insert(writer, records)


def _first_closed(writer: sqlite3.Connection, publish: Publish) -> str | None:
    """Return the first channel of this publish that is closed."""
    names = dict.fromkeys([*(event.channel for event in publish.events), *publish.close])
    found = closed(writer, names)
    return next((name for name in names if name in found), None) if found else None
