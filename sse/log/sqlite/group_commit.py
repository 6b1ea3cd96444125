"""Publishes that wait for a SQLite log, and the transaction that stores a group of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ...events.model import Event, Record
from ...events.trace import Trace
from ..base import Stored


class Publish:
    """One call of ``append`` in the queue. It is done once it has positions or an error."""

    __slots__ = ("digest", "error", "events", "key", "positions", "trace")

    def __init__(self, events: Sequence[Event], key: str | None, digest: bytes, trace: str | None) -> None:
        self.events = events
        self.key = key
        self.digest = digest
        self.trace = trace
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
