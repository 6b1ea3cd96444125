"""A disk that is full or fails: nothing is acknowledged, readers go on, and so do writers once there is room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.children import run
from tests.sse.log.conftest import Follower
from tests.support.wait import eventually

BIG = [Event("a", "x" * 60_000)]


def append_until_full(log: SQLiteLog) -> list[int]:
    stored: list[int] = []
    with pytest.raises(LogUnavailable, match="full"):
        for _ in range(200):
            stored += log.append(BIG)
    return stored


def test_full_disk_is_unavailable_and_writing_goes_on_once_there_is_room(
    small_disk: Path, open_sqlite: Callable[..., SQLiteLog], follow: Callable[..., Follower]
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2 * 1024 * 1024))
    log = open_sqlite()
    follower = follow(log)
    stored = append_until_full(log)
    assert len(stored) > 5
    for _ in range(3):
        with pytest.raises(LogUnavailable, match="full") as refusal:
            log.append(BIG, key="k", digest=b"1")
        assert refusal.value.retry_after > 0
    # Readers, old and new, go on.
    assert [record.position for record in log.read(None, 0, 1000, 1 << 30)] == stored
    assert log.bounds().latest == stored[-1]
    eventually(lambda: [record.position for record in follower.records] == stored)
    reports = follower.reports
    eventually(lambda: follower.reports > reports, 2)
    assert follower.error is None
    # And so does everything, with the same connections.
    filler.unlink()
    stored += log.append(BIG, key="k", digest=b"1")
    assert [record.position for record in log.read(None, 0, 1000, 1 << 30)] == stored
    eventually(lambda: [record.position for record in follower.records] == stored)


def test_retention_goes_on_after_a_full_disk(small_disk: Path, open_sqlite: Callable[..., SQLiteLog]) -> None:
    log = open_sqlite(retain_events=5)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(5 * 512 * 1024))
    append_until_full(log)
    log._upkeep._checkpoint_at = 0
    with pytest.raises(LogUnavailable, match="full"):
        log.trim()
    filler.unlink()
    for _ in range(100):
        log._upkeep._checkpoint_at = 0
        log.trim()
        log.append(BIG)
    log.trim()
    assert len(log.read(None, 0, 1000, 1 << 30)) == 5


def test_log_that_cannot_be_made_on_a_full_disk_can_be_made_later(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError):
        file.write(bytes(8 * 1024 * 1024))
    options = {"retain_events": 10, "retain_seconds": 10}
    with pytest.raises(LogUnavailable):
        SQLiteLog(str(small_disk / "log.db"), **options)
    filler.unlink()
    log = SQLiteLog(str(small_disk / "log.db"), **options)
    assert len(log.append(BIG)) == 1
    log.close()


FAILING_WRITES = """
import resource, signal, sys
from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.sqlite.engine import SQLiteLog

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = SQLiteLog(sys.argv[1], retain_events=1000, retain_seconds=1000)
stored = log.append([Event("a", "x")])
no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, no_limit[1]))
for n in range(100):
    try:
        stored += log.append([Event("a", "x" * 50_000)] * 2)
    except LogUnavailable as error:
        message = str(error)
        break
assert [r.position for r in log.read(None, 0, 1000, 1 << 30)] == stored
resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
stored += log.append([Event("a", "x" * 50_000)] * 2)
assert [r.position for r in log.read(None, 0, 1000, 1 << 30)] == stored
log.close()
print(message)
"""


def test_failing_writes_store_nothing_and_writing_goes_on_when_they_cease(path: Path) -> None:
    (message,) = run(FAILING_WRITES, path)
    assert str(path) in message


def test_follower_fails_by_name_when_the_file_cannot_be_read(path: Path, open_sqlite: Callable[..., SQLiteLog]) -> None:
    log = open_sqlite()
    log._writer.execute("DROP TABLE events")
    with pytest.raises(LogUnavailable, match="no such table"):
        next(log.follow(0, threading.Event()))
