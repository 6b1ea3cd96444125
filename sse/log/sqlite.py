"""The SQLite engine: one file, used by any number of worker processes of one machine at once.

**What survives.** WAL mode with synchronous=NORMAL: a commit is a write to the operating system. Killing
processes, at any moment and with any signal, loses nothing that was acknowledged. A power cut or a kernel
crash may lose the last commits, those since the last checkpoint (`_sqlite_upkeep`), but not more, and does
not damage the file. The file must be on a local file system: SQLite's locks and its shared index do not
work over a network.

**Writing.** Publishers of one process queue up; whoever gets the turn takes the write lock, commits for all
who are waiting by then in one transaction, and hands each its own result (*group commit*). Positions are
given out inside that transaction, ``max(now, last + 1)``, so they increase strictly, whoever writes,
whatever the clock does.

**Reading.** A connection at a time for each reader, from a small pool; each statement sees one moment. A
statement ends before control goes back to the caller: an open one would hold the write-ahead log back.

Beside ``<path>`` there are ``-wal`` and ``-shm`` (SQLite's) and ``-upkeep`` (a lock). What a follower
sleeps on is in `_wakeup`, the file's own rules are in `_sqlite_file`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, Final, TypeVar

from sse.event import Event, Record, make_position
from sse.log._sqlite_file import TRACES, connect, patiently, prepare, unavailable
from sse.log._sqlite_read import all_rows, one, page, select, size_of
from sse.log._sqlite_upkeep import AUTOCHECKPOINT_PAGES, Upkeep
from sse.log._wakeup import Wakeup, touch
from sse.log.base import (
    FOLLOW_CHARS,
    FOLLOW_RECORDS,
    QUIET_SECONDS,
    Bounds,
    IdempotencyConflict,
    LogUnavailable,
    TracedBatch,
)
from sse.trace import Trace

T = TypeVar("T")

# Publishes that one transaction takes in: bounds how long the first waits for the last.
_GROUP_MOST: Final = 1000

# Connections for reading that are kept open when nobody reads: a web server's threads, more or less.
_POOL_MOST: Final = 8

_BEGIN = "BEGIN IMMEDIATE"
_COMMIT = "COMMIT"
_LAST = "SELECT ifnull((SELECT max(position) FROM events), (SELECT value FROM meta WHERE name = 'trimmed'))"
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?)"
_KNOWN = "SELECT digest, first, count FROM publishes WHERE key = ?"
_TRACE = "INSERT INTO traces VALUES (?, ?, ?)"
_TRACED = "SELECT first, last, parent FROM traces WHERE first > ? AND first <= ? ORDER BY first"
_REMEMBER = "INSERT INTO publishes VALUES (?, ?, ?, ?, ?)"
_BOUNDS = (
    "SELECT (SELECT min(position) FROM events), (SELECT max(position) FROM events),"
    " (SELECT value FROM meta WHERE name = 'trimmed')"
)

_Row = tuple[str, str | None, int | None, str]  # channel, event, retry, data


class _Publish:
    """One call of `append` on its way through the queue. It is done when it has positions or an error."""

    __slots__ = ("digest", "error", "key", "positions", "rows", "trace")

    def __init__(self, rows: list[_Row], key: str | None, digest: bytes, trace: str | None) -> None:
        self.rows = rows
        self.key = key
        self.digest = digest
        self.trace = trace
        self.positions: list[int] | None = None
        self.error: Exception | None = None


class SQLiteLog:
    """The log in the file at `path`, which is made if there is none, with its directory.

    retain_events: events to keep; retain_seconds: how long. Open it after forking, once for each process.
    Raises `LogRefused` for a file that is damaged or not ours, `LogUnavailable` for what may pass.
    """

    shared = True
    notices_gaps = False

    def __init__(self, path: str, *, retain_events: int, retain_seconds: float) -> None:
        self._path = path = os.path.abspath(path)
        prepare(path)
        self._pid = os.getpid()
        self._closed = False
        self._lost: str | None = None  # why nothing more may be appended; reading goes on
        self._turn = threading.Lock()
        self._queue: deque[_Publish] = deque()
        self._readers: deque[sqlite3.Connection] = deque()
        self._followers: dict[Wakeup, None] = {}
        try:
            self._inode = os.stat(path).st_ino
            self._writer = connect(path, synchronous="NORMAL", wal_autocheckpoint=AUTOCHECKPOINT_PAGES)
            try:
                patiently(self._writer.execute, TRACES)
                self._upkeep = Upkeep(path, retain_events, retain_seconds)
            except BaseException:
                self._writer.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise unavailable(error, path) from error

    # --- Writing --------------------------------------------------------------------------------------------

    def append(
        self, events: Sequence[Event], *, key: str | None = None, digest: bytes = b"", trace: str | None = None
    ) -> list[int]:
        if not events:
            return []
        publish = _Publish([(e.channel, e.event, e.retry, e.data) for e in events], key, digest, trace)
        queue = self._queue
        queue.append(publish)
        try:
            with self._turn:
                while publish.positions is None and publish.error is None:
                    self._commit()
        except BaseException:
            with suppress(ValueError):
                queue.remove(publish)  # the caller was interrupted while it waited, and is told so
            raise
        if publish.positions is None:
            assert publish.error is not None
            raise publish.error
        return publish.positions

    def _commit(self) -> None:
        """One transaction for all who are in the queue when the write lock has been got."""
        writer = self._writer
        group: list[_Publish] = []
        try:
            self._check_usable()
            if self._lost is not None:
                raise LogUnavailable(self._lost)
            patiently(writer.execute, _BEGIN)
            group = self._take_group()
            results = self._store(group)
            writer.execute(_COMMIT)
        except (sqlite3.Error, OSError, LogUnavailable) as error:
            self._roll_back()
            for publish in group or self._take_group():
                publish.error = unavailable(error, self._path)
        except BaseException:
            self._roll_back()
            for publish in group:
                publish.error = LogUnavailable(f"{self._path}: interrupted, nothing was stored")
            raise
        else:
            for publish, result in zip(group, results, strict=True):
                if isinstance(result, Exception):
                    publish.error = result
                else:
                    publish.positions = result
            try:
                touch(self._path)
            except OSError:
                self.wake()  # only our own followers, then; others look once a second

    def _take_group(self) -> list[_Publish]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), _GROUP_MOST))]

    def _store(self, group: list[_Publish]) -> list[list[int] | Exception]:
        """Write the rows of these publishes, inside a transaction; what will have become of each if it
        commits."""
        writer = self._writer
        now_ms = time.time_ns() // 1_000_000
        (last,) = writer.execute(_LAST).fetchone()
        position = max(make_position(now_ms), last + 1)
        results: list[list[int] | Exception] = []
        rows: list[tuple[Any, ...]] = []
        for publish in group:
            if publish.key is not None:
                known = writer.execute(_KNOWN, (publish.key,)).fetchone()
                if known is not None:
                    digest, first, count = known
                    if digest == publish.digest:
                        results.append(list(range(first, first + count)))
                    else:
                        results.append(IdempotencyConflict("this idempotency key came with another content"))
                    continue
                memo = (publish.key, publish.digest, position, len(publish.rows), now_ms)
                writer.execute(_REMEMBER, memo)
            first = position
            for row in publish.rows:
                rows.append((position, *row))
                position += 1
            results.append(list(range(first, position)))
            if publish.trace is not None:
                writer.execute(_TRACE, (first, position - 1, publish.trace))
        if len(rows) == 1:
            writer.execute(_INSERT, rows[0])
        else:
            writer.executemany(_INSERT, rows)
        return results

    def _roll_back(self) -> None:
        # SQLite rolls back by itself after some errors (a full disk), not after others.
        with suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _check_usable(self) -> None:
        if self._closed:
            raise LogUnavailable(f"{self._path}: the log is closed")
        if os.getpid() != self._pid:
            # SQLite: a connection must not be carried across a fork; its locks stay behind.
            raise RuntimeError("this log was opened before a fork; open it in the process that uses it")

    # --- Reading --------------------------------------------------------------------------------------------

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        if channels is not None and not channels:
            return []
        statement, values = select("*", channels, after, "ASC")
        return self._query(page, statement, (*values, limit, 0), max_bytes)

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        if channels is not None and not channels:
            return []
        statement, values = select("*", channels, 0, "DESC")
        records = self._query(page, statement, (*values, limit, 0), max_bytes)
        records.reverse()
        return records

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        if channels is not None and not channels:
            return None
        statement, values = select("position", channels, after, "DESC")
        row = self._query(one, statement, (*values, 1, keep))
        return None if row is None else row[0]

    def bounds(self) -> Bounds:
        row = self._query(one, _BOUNDS)
        assert row is not None
        oldest, newest, trimmed = row
        return Bounds(oldest, trimmed if newest is None else newest, trimmed)

    def _query(self, work: Callable[..., T], *args: Any) -> T:
        """``work(connection, *args)`` with one of the pool (a deque, whose ends need no lock)."""
        self._check_usable()
        try:
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = connect(self._path, query_only=1)
            try:
                return patiently(work, reader, *args)
            finally:
                if self._closed or len(self._readers) >= _POOL_MOST:
                    reader.close()
                else:
                    self._readers.append(reader)
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error

    # --- Following ------------------------------------------------------------------------------------------

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        self._check_usable()
        try:
            with closing(Wakeup(self._path)) as wakeup, closing(connect(self._path, query_only=1)) as reader:
                self._followers[wakeup] = None
                try:
                    yield from self._follow(reader, wakeup, after, stop)
                finally:
                    del self._followers[wakeup]
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path) from error

    def _follow(
        self, reader: sqlite3.Connection, wakeup: Wakeup, after: int, stop: threading.Event
    ) -> Iterator[list[Record]]:
        statement = "SELECT * FROM events WHERE position > ? ORDER BY position LIMIT ?"
        quiet_at = check_at = 0.0  # the first answer comes at once, even if it is empty
        while not (stop.is_set() or self._closed):
            batch = patiently(page, reader, statement, (after, FOLLOW_RECORDS), FOLLOW_CHARS)
            now = time.monotonic()
            if now >= check_at:
                self._check_in_place()
                check_at = now + QUIET_SECONDS
            if batch or now >= quiet_at:
                if batch:
                    through = batch[-1].position
                    traces = patiently(all_rows, reader, _TRACED, (after, through))
                    if traces:
                        batch = TracedBatch(batch, [Trace(*row) for row in traces])
                    after = through
                quiet_at = now + QUIET_SECONDS
                yield batch
                if len(batch) == FOLLOW_RECORDS or size_of(batch) >= FOLLOW_CHARS:
                    time.sleep(0)  # a backlog: others get their turn between two of its pages
                    continue
            wakeup.wait(reader, max(quiet_at - time.monotonic(), 0))

    def _check_in_place(self) -> None:
        """Has somebody removed or replaced the file under us? What we append to it would be lost with us."""
        try:
            in_place = os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            in_place = False
        if not in_place:
            self._lost = f"{self._path}: the file was removed or replaced while in use; restart to use it"
            raise LogUnavailable(self._lost)

    def wake(self) -> None:
        for wakeup in list(self._followers):
            wakeup.ring()

    # --- Upkeep ---------------------------------------------------------------------------------------------

    def trim(self) -> int:
        self._check_usable()
        try:
            return self._upkeep.bite()
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path) from error

    def retain(self, events: int, seconds: float) -> None:
        self._upkeep.retain(events, seconds)

    def close(self) -> None:
        if self._closed:
            return
        with self._turn:
            self._closed = True
            self._writer.close()
        self._upkeep.close()
        while self._readers:
            self._readers.pop().close()
        self.wake()
