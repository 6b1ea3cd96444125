"""What followers of a SQLite log sleep on, with inotify and without."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sse.log.sqlite import wakeup as _wakeup
from sse.log.sqlite.wakeup import Wakeup, touch

LONG, SOON = 10.0, 5.0  # seconds; a busy machine may take a while to run a thread


def none_left(path: str) -> None:
    raise OSError(24, "Too many open files")


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        yield database


@pytest.fixture(params=["inotify", "polling"])
def wakeup(
    request: pytest.FixtureRequest, path: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Wakeup]:
    if request.param == "polling":
        monkeypatch.setattr(_wakeup, "Watch", none_left)
    with contextlib.closing(Wakeup(str(path))) as wakeup:
        assert (wakeup._watch is None) == (request.param == "polling")
        wakeup.wait(database, 0)  # the first may return at once: nothing is known of what was before
        yield wakeup


def commit(path: Path) -> None:
    """What a publisher in another process does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO t VALUES (1)")
    touch(str(path))


def seconds_asleep(wakeup: Wakeup, database: sqlite3.Connection, seconds: float) -> float:
    started = time.monotonic()
    wakeup.wait(database, seconds)
    return time.monotonic() - started


def test_sleeps_as_long_as_nothing_happens(wakeup: Wakeup, database: sqlite3.Connection) -> None:
    assert 0.2 <= seconds_asleep(wakeup, database, 0.2) < SOON


def test_commit_while_asleep_ends_the_sleep(wakeup: Wakeup, database: sqlite3.Connection, path: Path) -> None:
    timer = threading.Timer(0.1, commit, [path])
    timer.start()
    assert 0.05 <= seconds_asleep(wakeup, database, LONG) < SOON
    timer.join()


def test_commit_between_two_sleeps_ends_the_second_one(
    wakeup: Wakeup, database: sqlite3.Connection, path: Path
) -> None:
    """It may have come after the look that lies between them."""
    commit(path)
    assert seconds_asleep(wakeup, database, LONG) < SOON
    database.execute("SELECT * FROM t").fetchall()
    commit(path)
    assert seconds_asleep(wakeup, database, LONG) < SOON


def test_many_commits_are_one_awakening(wakeup: Wakeup, database: sqlite3.Connection, path: Path) -> None:
    for _ in range(50):
        commit(path)
    assert seconds_asleep(wakeup, database, LONG) < SOON
    assert seconds_asleep(wakeup, database, 0.2) >= 0.2


def test_ring_from_any_thread_ends_the_sleep_once(wakeup: Wakeup, database: sqlite3.Connection) -> None:
    timer = threading.Timer(0.1, wakeup.ring)
    timer.start()
    assert 0.05 <= seconds_asleep(wakeup, database, LONG) < SOON
    timer.join()
    assert seconds_asleep(wakeup, database, 0.2) >= 0.2


def test_rings_that_nobody_hears_do_not_block(wakeup: Wakeup, database: sqlite3.Connection) -> None:
    for _ in range(100_000):  # a pipe holds 65,536 bytes
        wakeup.ring()
    assert seconds_asleep(wakeup, database, LONG) < SOON


def test_closed_wakeup_keeps_no_descriptor_and_late_rings_are_harmless(path: Path) -> None:
    path.touch()
    before = os.listdir("/proc/self/fd")
    wakeup = Wakeup(str(path))
    wakeup.close()
    assert os.listdir("/proc/self/fd") == before
    wakeup.ring()
