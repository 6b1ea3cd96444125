"""What is particular to the SQLite engine within one process: transactions, indexes, forks."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sse.events.model import Event, make_position
from sse.log import IdempotencyConflict, LogUnavailable
from sse.log.sqlite import file as sqlite_file
from sse.log.sqlite.engine import SQLiteLog
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]
A = [Event("a", "x")]


class WriteLock:
    """Holds the file's write lock, as another process in the middle of a transaction does."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, *error: object) -> None:
        self._database.execute("ROLLBACK")
        self._database.close()


def commits(log: SQLiteLog) -> list[str]:
    """The list that every COMMIT of this log will be noted in."""
    seen: list[str] = []
    log._writer.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
    return seen


def test_publishers_who_wait_for_the_lock_share_one_transaction(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    log.append(A, key="taken", digest=b"1")
    seen = commits(log)

    def publish(n: int) -> list[int] | str:
        try:
            if n == 5:
                return log.append(A, key="taken", digest=b"2")
            if n == 6:
                return log.append(A, key="taken", digest=b"1")
            return log.append([Event("a", str(n))] * 2)
        except IdempotencyConflict:
            return "conflict"

    with ThreadPoolExecutor(10) as pool:
        with WriteLock(path):
            answers = [pool.submit(publish, n) for n in range(10)]
            eventually(lambda: len(log._queue) == 10)
        outcomes = [answer.result(5) for answer in answers]
    assert len(seen) == 1
    assert outcomes[5] == "conflict"
    records = log.read(None, 0, 100, 1 << 30)
    assert outcomes[6] == [records[0].position]
    assert len(records) == 1 + 8 * 2
    for n in {*range(10)} - {5, 6}:
        assert outcomes[n] == [record.position for record in records if record.data == str(n)]


def test_same_key_twice_in_one_transaction_is_stored_once(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    seen = commits(log)
    with ThreadPoolExecutor(2) as pool:
        with WriteLock(path):
            answers = [pool.submit(log.append, A, key="k", digest=b"1") for _ in range(2)]
            eventually(lambda: len(log._queue) == 2)
        first, second = (answer.result(5) for answer in answers)
    assert first == second and len(seen) == 1
    assert len(log.read(None, 0, 100, 1 << 30)) == 1


def test_lock_that_another_process_keeps_is_unavailable_after_a_while(
    open_sqlite: OpenSQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "LOCK_SECONDS", 0.2)
    log = open_sqlite()
    with WriteLock(path), ThreadPoolExecutor(4) as pool:
        started = time.monotonic()
        answers = [pool.submit(log.append, A) for _ in range(4)]
        for answer in answers:
            with pytest.raises(LogUnavailable, match="locked by another process"):
                answer.result(5)
        assert 0.2 <= time.monotonic() - started < 1.5
        assert log.read(None, 0, 10, 100) == []
        assert log.bounds().oldest is None
    assert len(log.append(A)) == 1


def test_publisher_that_is_interrupted_while_it_waits_stores_nothing(
    open_sqlite: OpenSQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interruption(BaseException):  # as gevent.Timeout and GreenletExit are
        pass

    def interrupt(seconds: float) -> None:
        raise Interruption

    log = open_sqlite()
    with WriteLock(path), monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        with pytest.raises(Interruption):
            log.append(A)
    assert len(log.append([Event("b", "next")])) == 1
    assert [record.data for record in log.read(None, 0, 10, 100)] == ["next"]


def test_failure_in_the_middle_of_a_transaction_stores_nothing_of_it(open_sqlite: OpenSQLite) -> None:
    log = open_sqlite()
    bad = Event("a", "x")
    object.__setattr__(bad, "data", None)  # NOT NULL fails, at the last row
    with pytest.raises(LogUnavailable, match="NOT NULL"):
        log.append([*A * 10, bad], key="k", digest=b"1")
    assert log.read(None, 0, 10, 100) == []
    assert len(log.append(A, key="k", digest=b"2")) == 1


def test_replay_of_a_channel_reads_no_other_channel(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    log.append([Event("busy", "x" * 500)] * 5000 + [Event("quiet", "x")] * 3 + [Event("calm", "x")] * 3)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    reader = log._readers.pop() if log._readers else sqlite_file.connect(str(path))
    log._readers.append(reader)
    reader.set_progress_handler(count, 1)  # every instruction of SQLite's virtual machine
    for use in (
        lambda: log.read(["quiet"], 0, 1000, 1 << 30),
        lambda: log.read(["quiet", "calm"], 0, 1000, 1 << 30),
        lambda: log.newest(["quiet", "calm"], 1000, 1 << 30),
        lambda: log.floor(["quiet", "calm"], 0, 2),
        lambda: log.read(["busy", "quiet"], 0, 3, 1 << 30),
        log.bounds,
    ):
        steps = 0
        use()
        assert 0 < steps < 1000


def test_reads_leave_no_transaction_open(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    log.append([Event("a", "x" * 100)] * 2000)
    log.read(None, 0, 2000, 10)
    log.newest(["a"], 2000, 10)
    log.floor(["a"], 0, 1)
    log.bounds()
    follower = log.follow(0, threading.Event())
    assert len(next(follower)) == 1000
    with closing(sqlite3.connect(path)) as database:
        # It answers "busy" while anybody reads an older state.
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def test_log_does_not_work_in_a_forked_child(open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_sqlite()
    log.append(A)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        for use in (lambda: log.append(A), log.bounds, lambda: next(log.follow(0, threading.Event()))):
            with pytest.raises(RuntimeError, match="before a fork"):
                use()
    assert len(log.append(A)) == 1
    assert len(log.read(None, 0, 10, 100)) == 2


@pytest.mark.parametrize(
    ("replace", "load"),
    [
        pytest.param(False, False, id="removed"),
        pytest.param(True, False, id="replaced"),
        pytest.param(True, True, id="replaced under load"),
    ],
)
def test_file_that_vanishes_under_a_running_log_is_noticed(
    open_sqlite: OpenSQLite, path: Path, replace: bool, load: bool
) -> None:
    log = open_sqlite()
    follower = log.follow(0, threading.Event())
    assert next(follower) == []
    path.rename(path.with_name("moved.db"))
    if replace:
        path.write_bytes(b"")
    with pytest.raises(LogUnavailable, match="removed or replaced"):
        for _ in range(300):
            if load:
                log.append(A)
                time.sleep(0.01)
            next(follower)
    with pytest.raises(LogUnavailable, match="removed or replaced"):
        log.append(A)


def test_log_that_closes_in_the_middle_of_a_read_keeps_nothing_open(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = SQLiteLog(str(path), retain_events=10, retain_seconds=1000)
    log.append(A)

    def read(reader: sqlite3.Connection) -> int:
        log.close()
        return len(reader.execute("SELECT * FROM events").fetchall())

    assert log._query(read) == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_idle_connections_are_not_kept(open_sqlite: OpenSQLite) -> None:
    log = open_sqlite()
    barrier = threading.Barrier(12)

    def work(reader: Any) -> None:
        barrier.wait(10)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: log._query(work), range(12)))
    assert len(log._readers) == 8


def test_position_does_not_depend_on_which_clock_is_right(
    open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, one with a clock an hour ahead, in turn."""
    ahead, behind = open_sqlite(), open_sqlite()
    real = time.time_ns
    positions: list[int] = []
    for _ in range(5):
        monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
        positions += ahead.append(A)
        monkeypatch.setattr(time, "time_ns", real)
        positions += behind.append(A * 2)
    assert positions == sorted(set(positions))
    assert positions[0] >= make_position((real() + 3500 * 10**9) // 1_000_000)
