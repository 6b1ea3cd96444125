"""Retention and checkpoints: who does them, and that the write-ahead log stays bounded."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.sqlite import upkeep
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.children import start
from tests.sse.log.conftest import Follower
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]
MB = 1024 * 1024


def wal_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def test_only_one_worker_trims_and_another_takes_over(open_sqlite: OpenSQLite) -> None:
    first, second = open_sqlite(retain_events=10), open_sqlite(retain_events=10)
    first.append([Event("a", "x")] * 1000)
    assert first.trim() == 500
    assert second.trim() == 0
    first.close()
    assert second.trim() == 490


HOLDER = """
import sys
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10, retain_seconds=10)
log.trim()
print("mine")
sys.stdin.readline()
"""


def test_duty_of_a_killed_worker_passes_on(path: Path, open_sqlite: OpenSQLite) -> None:
    log = open_sqlite(retain_events=10)
    with start(HOLDER, path, stdin=-1) as child:
        assert child.stdout is not None and child.stdout.readline() == "mine\n"
        log.append([Event("a", "x")] * 20)
        assert log.trim() == 0
        child.kill()
    assert log.trim() == 10


def test_count_stays_right_when_the_duty_goes_back_and_forth(open_sqlite: OpenSQLite) -> None:
    logs = [open_sqlite(retain_events=100) for _ in range(2)]
    writer = open_sqlite()
    for turn in range(6):
        writer.append([Event("a", "x")] * (70 + 450 * turn))
        while logs[turn % 2].trim():
            pass
        kept = len(writer.read(None, 0, 10_000, 1 << 30))
        assert kept == (70 if turn == 0 else 100)
        logs[turn % 2].close()
        logs[turn % 2] = open_sqlite(retain_events=100)


def test_rows_that_an_older_program_removed_are_not_counted(open_sqlite: OpenSQLite) -> None:
    """It keeps no books, and trims between two bites of this one."""
    log = open_sqlite(retain_events=100)
    log.append([Event("a", "x")] * 150)
    while log.trim():
        pass
    database = log._upkeep._idle[0]

    def older_program_trims(most: int) -> None:
        oldest = database.execute("SELECT position FROM events ORDER BY position LIMIT ?", (most,)).fetchall()
        database.execute("DELETE FROM events WHERE position <= ?", oldest[-1])
        database.execute("UPDATE meta SET value = ? WHERE name = 'trimmed'", oldest[-1])
        database.execute("UPDATE meta SET value = value + ? WHERE name = 'removed'", (len(oldest),))

    older_program_trims(30)
    log.append([Event("a", "x")] * 40)
    assert [log.trim(), log.trim()] == [10, 0]
    log.append([Event("a", "x")] * 500)
    older_program_trims(599)  # also those that were never counted
    assert log.trim() == 0
    assert [info.events for info in log.channels()] == [1]


def test_old_idempotency_keys_are_forgotten_and_young_ones_kept(
    open_sqlite: OpenSQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_sqlite()
    real = time.time_ns
    event = [Event("a", "x")]
    monkeypatch.setattr(time, "time_ns", lambda: real() - 901 * 10**9)
    for n in range(3):
        log.append(event, key=f"old{n}", digest=b"1")
    monkeypatch.setattr(time, "time_ns", lambda: real() - 600 * 10**9)
    log.append(event, key="young", digest=b"1")
    monkeypatch.undo()
    while log.trim():
        pass
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT key FROM publishes").fetchall() == [("young",)]


def test_write_ahead_log_is_emptied_soon_under_little_load(
    open_sqlite: OpenSQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CHECKPOINT_SECONDS", 0.1)
    log = open_sqlite()
    log.append([Event("a", "x" * 100)] * 1000)
    log.trim()  # counts them, which it writes down
    log._upkeep._checkpoint_at = time.monotonic() + 0.1
    before = wal_size(path)
    log.trim()
    assert wal_size(path) == before > 100_000
    eventually(lambda: (log.trim(), wal_size(path))[1] < 10_000, 2)
    # Then there is nothing to do, and nothing is done: no write, no sync.
    checkpoints = "SELECT value FROM meta WHERE name = 'checkpoints'"
    with closing(sqlite3.connect(path)) as database:
        before = database.execute(checkpoints).fetchone()
        for _ in range(5):
            log.trim()
        assert database.execute(checkpoints).fetchone() == before
        log.append([Event("a", "x")])
        eventually(lambda: (log.trim(), database.execute(checkpoints).fetchone())[1] > before, 2)


def test_write_ahead_log_stays_bounded_under_constant_load_with_readers(
    open_sqlite: OpenSQLite, path: Path, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only passive checkpoints are made, it grows for as long as the load lasts."""
    monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", MB)
    log, other = open_sqlite(retain_events=3000), open_sqlite()
    follower = follow(other)
    done = threading.Event()
    sizes: list[int] = []

    def keep_up() -> None:
        while not done.is_set():
            try:
                if not (other.trim() or log.trim()):
                    time.sleep(0.05)
            except LogUnavailable:
                pass
            sizes.append(wal_size(path))

    def read() -> None:
        while not done.is_set():
            other.read(None, other.bounds().trimmed, 1000, MB)

    threads = [threading.Thread(target=work) for work in (keep_up, read)]
    for thread in threads:
        thread.start()
    batch = [Event("a", "x" * 1000)] * 100
    for _ in range(400):
        log.append(batch)
        time.sleep(0.002)
    done.set()
    for thread in threads:
        thread.join(5)
    assert max(sizes) < 20 * MB  # of the 40 that were written
    follower.wait_for(40_000, 20)


def test_write_ahead_log_stays_bounded_when_nobody_calls_trim(
    open_sqlite: OpenSQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse.log.sqlite.engine.AUTOCHECKPOINT_PAGES", 256)
    log = open_sqlite()
    for _ in range(60):
        log.append([Event("a", "x" * 1000)] * 100)
    assert wal_size(path) < 3 * MB


def test_publishers_do_not_wait_for_the_disk_below_the_safety_threshold(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    for _ in range(100):
        log.append([Event("a", "x" * 1000)] * 100)
    assert upkeep.CHECKPOINT_BYTES < 10 * MB < wal_size(path) < upkeep.AUTOCHECKPOINT_PAGES * 4096
    assert path.stat().st_size < MB  # nothing was copied into it yet


def test_log_that_closes_in_the_middle_of_a_bite_keeps_nothing_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = SQLiteLog(str(path), retain_events=10, retain_seconds=1000)
    log.append([Event("a", "x")] * 100)
    bite = log._upkeep.retention.bite

    def close_meanwhile(*args: Any) -> int:
        log.close()
        return bite(*args)

    monkeypatch.setattr(log._upkeep.retention, "bite", close_meanwhile)
    assert log.trim() == 90, "the bite was not finished"
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_threads_do_not_trim_at_once(open_sqlite: OpenSQLite) -> None:
    log = open_sqlite(retain_events=1)
    log.append([Event("a", "x")] * 100)
    log._upkeep._idle.popleft()
    assert log.trim() == 0
