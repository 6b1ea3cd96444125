"""The memory engine: a log for one process, lost when it ends. For trying things out, and for tests."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from ..events.model import Event, Record, make_position
from ..events.trace import Trace
from ..runtime.bell import Bell, make_bell
from ..runtime.cooperation import native_lock
from .base import (
    FOLLOW_CHARS,
    FOLLOW_RECORDS,
    IDEMPOTENCY_SECONDS,
    QUIET_SECONDS,
    TRIM_BITE,
    Batch,
    Bounds,
    IdempotencyConflict,
    LogUnavailable,
    Usage,
)

# Traced publishes kept for followers that have not read them yet, the newest only.
_TRACES_MOST: Final = 1000

_POSITION: Final[Callable[[Record], int]] = lambda record: record.position  # noqa: E731


def check_url(url: str) -> None:
    """Raise ``ValueError`` unless ``url`` is ``memory:`` and no more."""
    if url != "memory:":
        raise ValueError("nothing may follow memory:")


def open_url(url: str, *, retain_events: int, retain_seconds: float, options: Mapping[str, Any]) -> MemoryLog:
    """Open an empty log. It has no options."""
    return MemoryLog(retain_events=retain_events, retain_seconds=retain_seconds)


class MemoryLog:
    """A log in this process's memory.

    retain_events: how many events to keep.
    retain_seconds: how long to keep them.
    """

    shared = False
    notices_gaps = False

    def __init__(self, *, retain_events: int, retain_seconds: float) -> None:
        self.retain(retain_events, retain_seconds)
        self._records: list[Record] = []
        self._latest = self._trimmed = self._began = make_position(time.time_ns() // 1_000_000)
        # By key: digest, positions, unix ms. Oldest first, as keys are never stored again.
        self._publishes: dict[str, tuple[bytes, range, int]] = {}
        self._traces: deque[Trace] = deque(maxlen=_TRACES_MOST)
        self._closed = False
        self._lock = native_lock()  # guards everything
        self._followers: dict[Bell, None] = {}

    def append(
        self, events: Sequence[Event], *, key: str | None = None, digest: bytes = b"", trace: str | None = None
    ) -> list[int]:
        if not events:
            return []
        with self._lock:
            self._check_open()
            now_ms = time.time_ns() // 1_000_000
            first = max(make_position(now_ms), self._latest + 1)
            positions = range(first, first + len(events))
            if key is not None:
                known = self._publishes.setdefault(key, (digest, positions, now_ms))
                if known[0] != digest:
                    raise IdempotencyConflict("this idempotency key came with another content")
                if known[1] is not positions:
                    return list(known[1])
            self._records.extend(
                Record(position, e.channel, e.event, e.retry, e.data)
                for position, e in zip(positions, events, strict=True)
            )
            self._latest = positions[-1]
            if trace is not None:
                self._traces.append(Trace(first, positions[-1], trace))
        self.wake()
        return list(positions)

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        with self._lock:
            self._check_open()
            records = self._records
            start = bisect_right(records, after, key=_POSITION)
            return _page((records[n] for n in range(start, len(records))), channels, limit, max_bytes)

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        with self._lock:
            self._check_open()
            page = _page(reversed(self._records), channels, limit, max_bytes)
        page.reverse()
        return page

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        with self._lock:
            self._check_open()
            for record in reversed(self._records):
                if record.position <= after:
                    break
                if channels is None or record.channel in channels:
                    if keep == 0:
                        return record.position
                    keep -= 1
        return None

    def bounds(self) -> Bounds:
        with self._lock:
            self._check_open()
            oldest = self._records[0].position if self._records else None
            return Bounds(oldest, self._latest, self._trimmed, complete=self._trimmed == self._began)

    def usage(self) -> Usage:
        """See ``Log.usage``. The bytes are part of the process's memory and not counted separately."""
        return Usage(None, None, self.bounds().oldest)

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        with self._lock:
            self._check_open()
        with closing(make_bell([])) as bell:
            self._followers[bell] = None
            try:
                yield from self._follow(bell, after, stop)
            finally:
                del self._followers[bell]

    def _follow(self, bell: Bell, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        quiet_at = 0.0  # the first batch is yielded at once, even if it is empty
        while not (stop.is_set() or self._closed):
            batch = self.read(None, after, FOLLOW_RECORDS, FOLLOW_CHARS)
            now = time.monotonic()
            if batch or now >= quiet_at:
                if batch:
                    if self._traces:
                        batch = self._traced(batch, after)
                    after = batch[-1].position
                yield batch
                quiet_at = now + QUIET_SECONDS
                time.sleep(0)  # between two pages of a backlog, others get their turn
            else:
                bell.wait(quiet_at - now)

    def _traced(self, batch: list[Record], after: int) -> list[Record]:
        with self._lock:
            traces = [trace for trace in self._traces if after < trace.first <= batch[-1].position]
        return Batch(batch, traces) if traces else batch

    def wake(self) -> None:
        for bell in list(self._followers):
            bell.ring()

    def trim(self) -> int:
        with self._lock:
            self._check_open()
            now_ms = time.time_ns() // 1_000_000
            expired = make_position(max(now_ms - self._retain_ms, 0))
            count = max(
                len(self._records) - self._retain_events, bisect_left(self._records, expired, key=_POSITION)
            )
            bite = self._records[: min(max(count, 0), TRIM_BITE)]
            if bite:
                self._trimmed = bite[-1].position
                del self._records[: len(bite)]
            forgotten: list[str] = []
            for key, (_, _, created_ms) in self._publishes.items():
                if created_ms >= now_ms - IDEMPOTENCY_SECONDS * 1000 or len(forgotten) == TRIM_BITE:
                    break
                forgotten.append(key)
            for key in forgotten:
                del self._publishes[key]
            return len(bite) + len(forgotten)

    def retain(self, events: int, seconds: float) -> None:
        self._retain_events = events
        self._retain_ms = int(seconds * 1000)

    def close(self) -> None:
        self._closed = True
        self.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed", stored="no")


def _page(
    records: Iterable[Record], channels: Collection[str] | None, limit: int, max_chars: int
) -> list[Record]:
    """Take the first matching records, through the one that brings their data to ``max_chars`` characters."""
    page: list[Record] = []
    if limit > 0:
        for record in records:
            if channels is None or record.channel in channels:
                page.append(record)
                max_chars -= len(record.data)
                if len(page) == limit or max_chars <= 0:
                    break
    return page
