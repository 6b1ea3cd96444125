"""The SQLite engine: one file, used by any number of worker processes of one machine at once.

**What survives.** WAL mode with synchronous=NORMAL: a commit is a write to the operating system. Killing
processes, at any moment and with any signal, loses nothing that was acknowledged. A power cut or a kernel
crash may lose the last commits, those since the last checkpoint (``upkeep``), but not more, and does
not damage the file. With ``sync=True`` each commit is synced before anybody is told of it, and a power cut loses
nothing that was acknowledged or read (``sync``). The file must be on a local file system: SQLite's locks and its
shared index do not work over a network.

**Writing.** Publishers of one process queue up. The one whose turn it is takes the write lock, commits in one
transaction for all who are waiting by then, and hands each its result (*group commit*). Positions are given
out inside that transaction, ``max(now, last + 1)``, so they increase strictly, whichever process writes and
whatever the clock does.

**Reading.** Each read takes a connection from a small pool; each statement sees one moment. A statement ends
before the caller gets control back: an open one would keep the write-ahead log from shrinking.

Beside ``<path>`` there are ``-wal`` and ``-shm`` (SQLite's), ``-upkeep`` (locks, and the line by which ``place``
recognises a restored backup) and, once something was erased, ``-erase`` (a lock).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any, Final, TypeVar

from ...events.model import Event, Record
from ...events.patterns import split
from ...runtime.cooperation import Turn, offload
from ..base import (
    ANY,
    CHANNELS_MOST,
    OFFLOAD_EVENTS,
    Bounds,
    ChannelInfo,
    Erased,
    Expected,
    LogReplaced,
    LogUnavailable,
    RetainRule,
    Stored,
    Usage,
)
from . import channels as _channels
from . import erase as _erase
from . import notes as _notes
from .file import connect, open_writer, patiently, prepare, space, unavailable, wrote_nothing
from .follow import Follower, commits
from .group_commit import Publish, Transaction, store
from .others import Others
from .place import lost
from .query import floor, records
from .read import one
from .schema import LATEST
from .sync import Sync
from .upkeep import AUTOCHECKPOINT_PAGES, Upkeep
from .wakeup import Wakeup, touch

T = TypeVar("T")

# Publishes in one transaction, at most: bounds how long the first waits for the last.
_GROUP_MOST: Final = 1000

# Reading connections kept open while nobody reads: about as many as a web server has threads.
_POOL_MOST: Final = 8

_BOUNDS = (
    f"SELECT (SELECT min(position) FROM events), {LATEST},"
    " (SELECT max(value) FROM meta WHERE name IN ('trimmed', 'gone')),"
    " (SELECT value FROM meta WHERE name = 'began'), ifnull((SELECT value FROM meta WHERE name = 'erased'), 0)"
)


class SQLiteLog:
    """The log in the file at ``path``; creates the file and its directory if needed.

    retain_events: how many events to keep.
    retain_seconds: how long to keep them.
    sync: acknowledge after a sync, and deliver after it, too.

    Open it after forking, once for each process. Raises ``LogRefused`` for a file that is damaged or not ours,
    ``LogUnavailable`` for what may pass.
    """

    shared = True
    notices_gaps = False

    def __init__(self, path: str, *, retain_events: int, retain_seconds: float, sync: bool = False) -> None:
        self._path = path = os.path.abspath(path)
        prepare(path)
        self._pid = os.getpid()
        self._closed = False
        self._lost: str | None = None  # why nothing more may be appended; reading goes on
        self._sync = Sync(path, full=sync)
        self._turn = threading.Lock()
        self._queue: deque[Publish] = deque()
        self._readers: deque[sqlite3.Connection] = deque()
        self._followers: dict[Follower, None] = {}
        self._arrivals = Turn()
        try:
            self._inode = os.stat(path).st_ino
            with ExitStack() as opened:
                self._writer, self._mark = open_writer(
                    path, synchronous=self._sync.pragma, wal_autocheckpoint=AUTOCHECKPOINT_PAGES
                )
                opened.callback(self._writer.close)
                self._others = Others(path)
                opened.callback(self._others.close)
                self._upkeep = Upkeep(path, retain_events, retain_seconds, self._mark)
                opened.callback(self._upkeep.close)
                self._sync.begin()
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
        if not events and not close:
            return []
        publish = Publish(events, key, digest, trace, close)
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

        One that is large, or waits for a sync, runs in a thread; the caller keeps this process's lock (see
        ``offload``), and whoever comes meanwhile is in the next one.
        """
        work = Transaction()
        try:
            self._check_usable()
            if self._lost is not None:
                raise LogUnavailable(self._lost, stored="no")
            if self._sync.full:
                self._sync.thread(self._transact, work)
            elif sum([len(publish.events) for publish in list(self._queue)]) > OFFLOAD_EVENTS:
                offload(self._transact, work)
            else:
                self._transact(work)
        except (sqlite3.Error, OSError, LogUnavailable) as error:
            self._roll_back()
            self._sync.note(error)
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
        if self._sync.failed:
            self._sync.write_again()
        patiently(self._writer.execute, "BEGIN IMMEDIATE")
        work.group = self._take_group()
        store(self._writer, work, self._mark)
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

    def erase(self, channel: str) -> Erased:
        """See ``Log.erase``. Publishers wait while the records are removed, about 4 µs each, but not for the rest."""
        self._check_usable()
        erased = _erase.remove(self._path, channel, self._mark)
        self.wake()
        self._tell_others()
        _erase.let_go(self._path, erased)
        return erased

    def _announce(self, work: Transaction) -> None:
        """Hand this process's followers what was committed, and wake those of other processes."""
        for follower in list(self._followers):
            for commit in commits(work.previous, work.records, work.traces):
                follower.offer(commit)
        self._tell_others()

    def _tell_others(self) -> None:
        """Wake the followers of other processes."""
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
        return self._query(records, channels, after, "ASC", limit, max_bytes)

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        found = self._query(records, channels, 0, "DESC", limit, max_bytes)
        found.reverse()
        return found

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        return self._query(floor, channels, after, keep)

    def bounds(self) -> Bounds:
        row = self._query(one, _BOUNDS)
        assert row is not None
        oldest, latest, trimmed, began, erased = row
        return Bounds(oldest, max(latest, trimmed, self._mark), trimmed, self._mark, began, erased)

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        if channels is None:
            bounds = self.bounds()
            highest = bounds.trimmed if bounds.trimmed > bounds.began else 0
        else:
            highest = self._query(_channels.gone, channels)
        return highest if highest > after else 0

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        names, _ = split(channels)
        return self._query(_channels.closed, names) if names else {}

    def channels(self, prefix: str = "", after: str = "", limit: int = CHANNELS_MOST) -> list[ChannelInfo]:
        self._write(_channels.catch_up)
        return self._query(_channels.page, prefix, after, min(limit, CHANNELS_MOST))

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
                    over: Callable[[], bool] = lambda: self._closed or stop.is_set()  # noqa: E731
                    check = partial(self._check_same, reader, self._mark)
                    yield from follower.batches(reader, after, over, check)
                finally:
                    del self._followers[follower]
                    self._others.stop_following()
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self._path) from error

    def _check_same(self, reader: sqlite3.Connection, mark: int) -> None:
        """Has somebody restored a backup into the file (``build``), or removed or replaced it under us?

        What we append to a file that was removed would be lost with us. mark: that of this follower's log.
        """
        try:
            in_place = os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            in_place = False
        if not in_place:
            self._lost = f"{self._path}: the file was removed or replaced while in use; restart to use it"
            raise LogUnavailable(self._lost, stored="no")
        now = lost(reader)
        if now != mark:
            self._mark = now
            raise LogReplaced(f"{self._path}: a backup was restored")

    def wake(self) -> None:
        for follower in list(self._followers):
            follower.wake()

    # ── notes ───────────────────────────────────────────────────────────────────────────────────────────

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Expected = ANY) -> bool:
        return self._write(_notes.put, kind, name, value, seconds, expected)

    def notes(self, kind: str) -> dict[str, str]:
        return self._query(_notes.fresh, kind)

    def drop_note(self, kind: str, name: str) -> None:
        self._write(_notes.drop, kind, name)

    def _write(self, work: Callable[..., T], *args: Any) -> T:
        """``work(connection, *args)`` with a connection of its own: the writer's belongs to publishers."""
        self._check_usable()
        try:
            with closing(connect(self._path, synchronous=self._sync.pragma, wal_autocheckpoint=0)) as database:
                return work(database, *args)
        except sqlite3.Error as error:
            self._sync.note(error)
            raise unavailable(error, self._path) from error

    # ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────

    def trim(self) -> int:
        self._check_usable()
        try:
            return self._upkeep.bite()
        except (sqlite3.Error, OSError) as error:
            self._sync.note(error)
            raise unavailable(error, self._path) from error

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        self._upkeep.retention.apply(events, seconds, rules)

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
