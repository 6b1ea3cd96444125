"""The SQLite engine: one file, used by any number of worker processes of one machine at once.

**What survives.** WAL mode with synchronous=NORMAL: a commit is a write to the operating system. Killing
processes, at any moment and with any signal, loses nothing that was acknowledged. A power cut or a kernel
crash may lose the last commits, those since the last checkpoint (``upkeep``), but not more, and does
not damage the file. The file must be on a local file system: SQLite's locks and its shared index do not
work over a network.

**Writing.** Publishers of one process queue up. The one whose turn it is takes the write lock, commits in one
transaction for all who are waiting by then, and hands each its result (*group commit*). Positions are given
out inside that transaction, ``max(now, last + 1)``, so they increase strictly, whichever process writes and
whatever the clock does.

**Reading.** Each read takes a connection from a small pool; each statement sees one moment. A statement ends
before the caller gets control back: an open one would keep the write-ahead log from shrinking.

Beside ``<path>`` there are ``-wal`` and ``-shm`` (SQLite's) and ``-upkeep`` (locks, and the line by which ``place``
recognises a restored backup).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any, Final, TypeVar

from ...events.model import Event, Record, make_position
from ...events.trace import Trace
from ...runtime.cooperation import Turn, offload
from ..base import (
    ANY,
    CHANNELS_MOST,
    FOLLOW_CHARS,
    FOLLOW_RECORDS,
    OFFLOAD_EVENTS,
    QUIET_SECONDS,
    Batch,
    Bounds,
    ChannelInfo,
    Erased,
    Expected,
    IdempotencyConflict,
    LogUnavailable,
    RetainRule,
    Stored,
    Usage,
)
from .file import connect, open_writer, patiently, prepare, space, unavailable, wrote_nothing
from .follow import Follower, commits
from .group_commit import Publish, Transaction
from .others import Others
from .read import all_rows, one, page, record, select, size_of
from .upkeep import AUTOCHECKPOINT_PAGES, Upkeep
from .wakeup import Wakeup, touch
from .write import insert

T = TypeVar("T")

# Publishes in one transaction, at most: bounds how long the first waits for the last.
_GROUP_MOST: Final = 1000

# Reading connections kept open while nobody reads: about as many as a web server has threads.
_POOL_MOST: Final = 8

_AFTER = "SELECT * FROM events WHERE position > ? ORDER BY position LIMIT ?"
_LAST = "SELECT ifnull((SELECT max(position) FROM events), (SELECT value FROM meta WHERE name = 'trimmed'))"
_KNOWN = "SELECT digest, first, count FROM publishes WHERE key = ?"
_TRACE = "INSERT INTO traces VALUES (?, ?, ?)"
_TRACED = "SELECT first, last, parent FROM traces WHERE first > ? AND first <= ? ORDER BY first"
_REMEMBER = "INSERT INTO publishes VALUES (?, ?, ?, ?, ?)"
_BOUNDS = (
    "SELECT (SELECT min(position) FROM events), (SELECT max(position) FROM events),"
    " (SELECT value FROM meta WHERE name = 'trimmed'), (SELECT value FROM meta WHERE name = 'removed')"
)


class SQLiteLog:
    """The log in the file at ``path``; creates the file and its directory if needed.

    retain_events: how many events to keep.
    retain_seconds: how long to keep them.

    Open it after forking, once for each process. Raises ``LogRefused`` for a file that is damaged or not ours,
    ``LogUnavailable`` for what may pass.
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
        self._queue: deque[Publish] = deque()
        self._readers: deque[sqlite3.Connection] = deque()
        self._followers: dict[Follower, None] = {}
        self._arrivals = Turn()
        try:
            self._inode = os.stat(path).st_ino
            with ExitStack() as opened:
                self._writer, self._mark = open_writer(path, wal_autocheckpoint=AUTOCHECKPOINT_PAGES)
                opened.callback(self._writer.close)
                self._others = Others(path)
                opened.callback(self._others.close)
                self._upkeep = Upkeep(path, retain_events, retain_seconds, self._mark)
                opened.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise unavailable(error, path, "no") from error

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────

    def append(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        digest: bytes = b"",
        trace: str | None = None,
        close: Collection[str] = (),
    ) -> list[int]:
        if close:
            raise LogUnavailable("not yet", stored="no")
        if not events:
            return []
        publish = Publish(events, key, digest, trace)
        queue = self._queue
        queue.append(publish)
        try:
            self._arrivals.gather()
            with self._turn:
                while publish.positions is None and publish.error is None:
                    self._commit()
        except BaseException:
            with suppress(ValueError):
                queue.remove(publish)  # the caller was interrupted while it waited
            raise
        if publish.positions is None:
            assert publish.error is not None
            raise publish.error
        return publish.positions

    def _commit(self) -> None:
        """Commit one transaction for everybody in the queue once the write lock is held.

        A large one runs in a thread; the caller keeps this process's lock (see ``offload``).
        """
        work = Transaction()
        try:
            self._check_usable()
            if self._lost is not None:
                raise LogUnavailable(self._lost, stored="no")
            if sum([len(publish.events) for publish in list(self._queue)]) > OFFLOAD_EVENTS:
                offload(self._transact, work)
            else:
                self._transact(work)
        except (sqlite3.Error, OSError, LogUnavailable) as error:
            self._roll_back()
            stored: Stored = "no" if work.stored == "no" or wrote_nothing(error) else "unknown"
            for publish in work.group or self._take_group():
                publish.error = unavailable(error, self._path, stored)
        except BaseException:
            if work.stored == "yes":
                self._settle(work)
            else:
                self._roll_back()
                for publish in work.group:
                    publish.error = LogUnavailable(f"{self._path}: interrupted", stored=work.stored)
            raise
        else:
            self._settle(work)

    def _transact(self, work: Transaction) -> None:
        patiently(self._writer.execute, "BEGIN IMMEDIATE")
        work.group = self._take_group()
        self._store(work)
        work.stored = "unknown"
        patiently(self._writer.execute, "COMMIT")
        work.stored = "yes"

    def _settle(self, work: Transaction) -> None:
        """Tell the publishers, and then the followers."""
        for publish, result in zip(work.group, work.results, strict=True):
            if isinstance(result, Exception):
                publish.error = result
            else:
                publish.positions = result
        self._announce(work)

    def _take_group(self) -> list[Publish]:
        # Not counted first: an interrupted publisher may remove itself meanwhile (this may be a real thread).
        group: list[Publish] = []
        with suppress(IndexError):
            while len(group) < _GROUP_MOST:
                group.append(self._queue.popleft())
        return group

    def _store(self, work: Transaction) -> None:
        """Write the rows of the transaction's publishes, and note each one's result should it commit."""
        writer, results, records = self._writer, work.results, work.records
        now_ms = time.time_ns() // 1_000_000
        (last,) = writer.execute(_LAST).fetchone()
        work.previous = last = max(last, self._mark)
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
                memo = (publish.key, publish.digest, position, len(publish.events), now_ms)
                writer.execute(_REMEMBER, memo)
            first, position = position, position + len(publish.events)
            positions = list(range(first, position))
            rows = zip(positions, publish.events, strict=True)
            records += [record((position, e.channel, e.event, e.retry, e.data)) for position, e in rows]
            results.append(positions)
            if publish.trace is not None:
                work.traces.append(Trace(first, position - 1, publish.trace))
                writer.execute(_TRACE, work.traces[-1])
        if records:
            insert(writer, records)

    def _announce(self, work: Transaction) -> None:
        """Hand this process's followers what was committed, and wake those of other processes."""
        for follower in list(self._followers):
            for commit in commits(work.previous, work.records, work.traces):
                follower.offer(commit)
        if self._others.exist():
            with suppress(OSError):  # they also look once a second
                touch(self._path)

    def _roll_back(self) -> None:
        # SQLite itself rolls back after some errors (a full disk), not after others.
        with suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _check_usable(self) -> None:
        if self._closed:
            raise LogUnavailable(f"{self._path}: the log is closed", stored="no")
        if os.getpid() != self._pid:
            # SQLite: a connection must not be carried across a fork; its locks stay behind.
            raise RuntimeError("this log was opened before a fork; open it in the process that uses it")

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────

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
        oldest, newest, trimmed, removed = row
        latest = max(trimmed if newest is None else newest, self._mark)
        return Bounds(oldest, latest, trimmed, self._mark, began=trimmed if removed == 0 else 0)

    def usage(self) -> Usage:
        try:
            return Usage(*space(self._path), self.bounds().oldest)
        except OSError as error:
            raise unavailable(error, self._path) from error

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

    # ── following ───────────────────────────────────────────────────────────────────────────────────────

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        self._check_usable()
        try:
            with closing(Wakeup(self._path)) as wakeup, closing(connect(self._path, query_only=1)) as reader:
                follower = Follower(wakeup)
                self._followers[follower] = None
                self._others.follow_too()
                try:
                    yield from self._follow(reader, wakeup, follower, after, stop)
                finally:
                    del self._followers[follower]
                    self._others.stop_following()
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path) from error

    def _follow(
        self, reader: sqlite3.Connection, wakeup: Wakeup, follower: Follower, after: int, stop: threading.Event
    ) -> Iterator[list[Record]]:
        quiet_at = check_at = 0.0  # the first batch is yielded at once, even if it is empty
        while not (stop.is_set() or self._closed):
            batch: list[Record] = follower.take(after)
            now = time.monotonic()
            if not batch and (follower.look or now >= quiet_at):
                follower.look = False
                batch = self._page(reader, after)
                # A full page means a backlog. Others get their turn between two of its pages.
                follower.look = follower.look or len(batch) == FOLLOW_RECORDS or size_of(batch) >= FOLLOW_CHARS
            if now >= check_at:
                self._check_in_place()
                check_at = now + QUIET_SECONDS
            if batch or now >= quiet_at:
                if batch:
                    after = batch[-1].position
                quiet_at = now + QUIET_SECONDS
                yield batch
                if follower.look:
                    time.sleep(0)
            elif wakeup.wait(reader, max(quiet_at - time.monotonic(), 0)):
                follower.look = True

    @staticmethod
    def _page(reader: sqlite3.Connection, after: int) -> list[Record]:
        batch = patiently(page, reader, _AFTER, (after, FOLLOW_RECORDS), FOLLOW_CHARS)
        if batch:
            traces = patiently(all_rows, reader, _TRACED, (after, batch[-1].position))
            if traces:
                return Batch(batch, [Trace(*row) for row in traces])
        return batch

    def _check_in_place(self) -> None:
        """Has somebody removed or replaced the file under us? What we append to it would be lost with us."""
        try:
            in_place = os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            in_place = False
        if not in_place:
            self._lost = f"{self._path}: the file was removed or replaced while in use; restart to use it"
            raise LogUnavailable(self._lost, stored="no")

    def wake(self) -> None:
        for follower in list(self._followers):
            follower.wake()

    # ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────

    def trim(self) -> int:
        self._check_usable()
        try:
            return self._upkeep.bite()
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path) from error

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        self._upkeep.retain(events, seconds)

    def close(self) -> None:
        if self._closed:
            return
        with self._turn:
            self._closed = True
            self._writer.close()
        self._upkeep.close()
        self._others.close()
        while self._readers:
            self._readers.pop().close()
        self.wake()

    # ── not yet ─────────────────────────────────────────────────────────────────────────────────────────────

    def erase(self, channel: str) -> Erased:
        raise LogUnavailable("not yet", stored="no")

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        raise LogUnavailable("not yet", stored="no")

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        raise LogUnavailable("not yet", stored="no")

    def channels(self, prefix: str = "", after: str = "", limit: int = CHANNELS_MOST) -> list[ChannelInfo]:
        raise LogUnavailable("not yet", stored="no")

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Expected = ANY) -> bool:
        raise LogUnavailable("not yet", stored="no")

    def notes(self, kind: str) -> dict[str, str]:
        raise LogUnavailable("not yet", stored="no")

    def drop_note(self, kind: str, name: str) -> None:
        raise LogUnavailable("not yet", stored="no")
