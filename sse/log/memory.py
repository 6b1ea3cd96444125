"""The memory engine: a log for one process, lost when it ends. For trying things out, and for tests."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from ..events.markers import end_marker, erased_marker
from ..events.model import Event, Record, make_position
from ..events.patterns import matcher
from ..events.trace import Trace
from ..runtime.bell import Bell, make_bell
from ..runtime.cooperation import native_lock
from .base import (
    ANY,
    CHANNELS_MOST,
    FOLLOW_CHARS,
    FOLLOW_RECORDS,
    IDEMPOTENCY_SECONDS,
    QUIET_SECONDS,
    TRIM_BITE,
    Batch,
    Bounds,
    ChannelClosed,
    ChannelInfo,
    Erased,
    Expected,
    IdempotencyConflict,
    LogUnavailable,
    RetainRule,
    Usage,
)
from .memory_channels import Channels
from .rules import expired, now_ms

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
        self._channels = Channels()
        self._lock = native_lock()  # guards everything
        self.retain(retain_events, retain_seconds)
        self._records: list[Record] = []
        self._latest = self._trimmed = self._began = make_position(time.time_ns() // 1_000_000)
        self._erased = 0
        # By key: digest, positions, unix ms. Oldest first, as keys are never stored again.
        self._publishes: dict[str, tuple[bytes, range, int]] = {}
        self._traces: deque[Trace] = deque(maxlen=_TRACES_MOST)
        self._notes: dict[str, dict[str, tuple[str, float]]] = {}  # by kind and name: value, unix ms of its expiry
        self._closed = False
        self._followers: dict[Bell, None] = {}

    def append(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        digest: bytes = b"",
        trace: str | None = None,
        close: Collection[str] = (),
    ) -> list[int]:
        if not events and not close:
            return []
        ends = sorted(set(close))
        with self._lock:
            self._check_open()
            now = now_ms()
            first = max(make_position(now), self._latest + 1)
            positions = range(first, first + len(events) + len(ends))
            if key is not None and key in self._publishes:
                known = self._publishes[key]
                if known[0] != digest:
                    raise IdempotencyConflict("this idempotency key came with another content")
                return list(known[1])
            ended = self._channels.ended
            if ended:
                for channel in (*(event.channel for event in events), *ends):
                    if channel in ended:
                        raise ChannelClosed(channel)
            if key is not None:
                self._publishes[key] = digest, positions, now
            self._store(first, [*events, *map(end_marker, ends)] if ends else events)
            ended.update(zip(ends, positions[len(events) :], strict=True))
            if trace is not None:
                self._traces.append(Trace(first, positions[-1], trace))
        self.wake()
        return list(positions)

    def _store(self, first: int, events: Sequence[Event]) -> None:
        """Add these events from the position ``first`` on."""
        for position, e in enumerate(events, first):
            record = Record(position, e.channel, e.event, e.retry, e.data)
            self._records.append(record)
            self._channels.add(record)
        self._latest = first + len(events) - 1

    def erase(self, channel: str) -> Erased:
        with self._lock:
            self._check_open()
            records, events = self._channels.erase(channel)
            self._remove([record.position for record in records])
            position = max(make_position(now_ms()), self._latest + 1)
            self._store(position, [erased_marker(channel, position)])
            self._erased = position
        self.wake()
        return Erased(events, position)

    def _remove(self, positions: Sequence[int]) -> None:
        """Remove the records at these positions, which ascend."""
        if positions:
            begin, end = (bisect_right(self._records, p, key=_POSITION) for p in (positions[0] - 1, positions[-1]))
            leaving = frozenset(positions)
            self._records[begin:end] = [r for r in self._records[begin:end] if r.position not in leaving]

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
            wanted = _wanted(channels)
            for record in reversed(self._records):
                if record.position <= after:
                    break
                if wanted(record.channel):
                    if keep == 0:
                        return record.position
                    keep -= 1
        return None

    def bounds(self) -> Bounds:
        with self._lock:
            self._check_open()
            oldest = self._records[0].position if self._records else None
            return Bounds(oldest, self._latest, self._trimmed, began=self._began, erased=self._erased)

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        with self._lock:
            self._check_open()
            highest = self._channels.gone(channels) if channels is not None else self._gone_of_all()
        return highest if highest > after else 0

    def _gone_of_all(self) -> int:
        return self._trimmed if self._trimmed > self._began else 0

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        with self._lock:
            self._check_open()
            ended = self._channels.ended
            return {channel: ended[channel] for channel in channels if channel in ended}

    def channels(self, prefix: str = "", after: str = "", limit: int = CHANNELS_MOST) -> list[ChannelInfo]:
        with self._lock:
            self._check_open()
            return self._channels.page(prefix, after, min(limit, CHANNELS_MOST))

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

    # ── notes ───────────────────────────────────────────────────────────────────────────────────────────────

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Expected = ANY) -> bool:
        with self._lock:
            self._check_open()
            notes = self._fresh(kind)
            present = notes[name][0] if name in notes else None
            if expected is not ANY and expected != present:
                return False
            notes[name] = value, now_ms() + seconds * 1000
            return True

    def notes(self, kind: str) -> dict[str, str]:
        with self._lock:
            self._check_open()
            return {name: value for name, (value, _) in self._fresh(kind).items()}

    def drop_note(self, kind: str, name: str) -> None:
        with self._lock:
            self._check_open()
            self._fresh(kind).pop(name, None)

    def _fresh(self, kind: str) -> dict[str, tuple[str, float]]:
        """Drop the notes of a kind that have expired; return the rest."""
        now = now_ms()
        fresh = {name: note for name, note in self._notes.get(kind, {}).items() if note[1] > now}
        self._notes[kind] = fresh
        return fresh

    # ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────────

    def trim(self) -> int:
        with self._lock:
            self._check_open()
            now = now_ms()
            due = self._channels.due(now)
            due += self._due_of_the_rest(now, TRIM_BITE - len(due))
            if due:
                due.sort(key=_POSITION)
                self._channels.trim(due)
                self._remove([record.position for record in due])
                self._trimmed = max(self._trimmed, due[-1].position)
            self._channels.forget(now)
            forgotten: list[str] = []
            for key, (_, _, created) in self._publishes.items():
                if created >= now - IDEMPOTENCY_SECONDS * 1000 or len(forgotten) == TRIM_BITE:
                    break
                forgotten.append(key)
            for key in forgotten:
                del self._publishes[key]
            return len(due) + len(forgotten)

    def _due_of_the_rest(self, now: int, most: int) -> list[Record]:
        """Find what is to be trimmed of the channels without a rule, the oldest, at most so many."""
        ruled = self._channels.ruled
        surplus = len(self._records) - self._channels.under_rules() - self._retain_events
        before = expired(now, self._retain_seconds)
        due: list[Record] = []
        for record in self._records:
            if len(due) >= most or (len(due) >= surplus and record.position >= before):
                break
            if record.channel not in ruled:
                due.append(record)
        return due

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        with self._lock:
            self._retain_events = events
            self._retain_seconds = seconds
            self._channels.apply(rules)

    def close(self) -> None:
        self._closed = True
        self.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed", stored="no")


def _wanted(channels: Collection[str] | None) -> Callable[[str], bool]:
    return (lambda channel: True) if channels is None else matcher(channels)


def _page(
    records: Iterable[Record], channels: Collection[str] | None, limit: int, max_chars: int
) -> list[Record]:
    """Take the first matching records, through the one that brings their data to ``max_chars`` characters."""
    page: list[Record] = []
    if limit > 0:
        wanted = _wanted(channels)
        for record in records:
            if wanted(record.channel):
                page.append(record)
                max_chars -= len(record.data)
                if len(page) == limit or max_chars <= 0:
                    break
    return page
