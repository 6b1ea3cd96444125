"""Several processes on one SQLite log: what survives a kill, who sees what, how soon, and at what cost."""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from sse.events.model import Event
from sse.log import LogRefused
from sse.log.sqlite import file as sqlite_file
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.children import run, start
from tests.sse.log.conftest import Follower
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]

# Appends at full speed, and says so after each: "<first position> <number> <writer>.<n of the first>".
WRITER = r"""
import os, random, sys, threading, time
from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.sqlite.engine import SQLiteLog
path, writer = sys.argv[1:]
log = SQLiteLog(path, retain_events=10**9, retain_seconds=10**6)
def keep_up():
    while True:
        try:
            log.trim()
        except LogUnavailable:
            pass
        time.sleep(0.01)
threading.Thread(target=keep_up, daemon=True).start()
n = 0
while True:
    batch = [Event("a", f"{writer}.{n + i}") for i in range(random.choice((1, 1, 1, 50)))]
    positions = log.append(batch, key=f"{writer}.{n}", digest=b"d")
    os.write(1, f"{positions[0]} {len(positions)} {writer}.{n}\n".encode())
    n += len(batch)
"""


def test_nothing_acknowledged_is_lost_doubled_or_reordered_by_kills(
    path: Path, open_sqlite: OpenSQLite, follow: Callable[..., Follower]
) -> None:
    log = open_sqlite(retain_events=10**9)
    follower = follow(log)
    acknowledged: list[tuple[int, int, str]] = []
    for turn in range(6):
        outputs = [path.with_name(f"{turn}-{n}") for n in range(2)]
        with contextlib.ExitStack() as files:
            children = [
                start(WRITER, path, output.name, stdout=files.enter_context(output.open("wb"))) for output in outputs
            ]
        try:
            eventually(lambda: all(output.stat().st_size for output in outputs), 10)  # noqa: B023
            time.sleep(random.uniform(0.02, 0.15))
        finally:
            for child in children:
                child.kill()
            for child in children:
                child.wait(10)
        for output in outputs:
            for line in output.read_text().split("\n")[:-1]:  # the last may be cut
                first, count, name = line.split()
                acknowledged.append((int(first), int(count), name))
    assert len(acknowledged) > 200

    log.append([Event("a", "end.0")])
    eventually(lambda: follower.records and follower.records[-1].data == "end.0", 10)
    records = follower.records
    positions = [record.position for record in records]
    assert positions == sorted(set(positions))
    by_position = {record.position: record.data for record in records}
    for position, length, name in acknowledged:
        writer, n = name.split(".")
        for i in range(length):
            assert by_position[position + i] == f"{writer}.{int(n) + i}"
    written = defaultdict(list)
    for record in records:
        writer, _, n = record.data.partition(".")
        written[writer].append(int(n))
    for numbers in written.values():
        assert numbers == list(range(len(numbers)))


def test_log_that_is_in_use_is_never_taken_for_a_damaged_one(path: Path, open_sqlite: OpenSQLite) -> None:
    """While a checkpoint is under way, the file itself is torn: its header says that it is longer than it is."""
    with start(WRITER.replace("time.sleep(0.01)", "log._upkeep._checkpoint_at = 0"), path, "w") as child:
        try:
            assert child.stdout is not None and child.stdout.readline()
            deadline = time.monotonic() + 1.5
            opened = 0
            while time.monotonic() < deadline:
                try:
                    sqlite_file.prepare(str(path))
                except LogRefused as error:
                    pytest.fail(f"refused at try {opened}: {error}")
                opened += 1
                path.touch()
        finally:
            child.kill()
    assert opened > 20


def test_opening_a_log_leaves_the_locks_of_this_process_alone(path: Path, open_sqlite: OpenSQLite) -> None:
    """POSIX drops a process's locks on a file when it closes any descriptor of it."""
    log = open_sqlite()
    log._writer.execute("BEGIN IMMEDIATE")
    open_sqlite().bounds()
    (answer,) = run(
        """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
else:
    print("both of us hold the lock")
""",
        path,
    )
    log._writer.execute("ROLLBACK")
    assert answer == "database is locked"


PUBLISHER = """
import sys, time
from sse.events.model import Event
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10**9, retain_seconds=10**6)
print("ready")
for line in sys.stdin:
    log.append([Event("a", str(time.monotonic_ns()))])
"""


class NotingFollower(Follower):
    """Notes when each record came, by the clock that all processes of a machine share."""

    def __init__(self, log: SQLiteLog, after: int) -> None:
        self.delays_ms: list[float] = []
        super().__init__(log, after)

    def _run(self, after: int) -> None:
        for batch in self._log.follow(after, self._stop):
            now = time.monotonic_ns()
            self.delays_ms.extend((now - int(record.data)) / 1e6 for record in batch)
            self.records.extend(batch)


def median_delay_ms(path: Path, log: SQLiteLog) -> float:
    """From before the append in another process to this one's follower; the best of three medians."""
    medians = []
    for _ in range(3):
        follower = NotingFollower(log, log.bounds().latest)
        with start(PUBLISHER, path, stdin=subprocess.PIPE, bufsize=1) as child:
            assert child.stdin is not None and child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            for n in range(1, 16):
                child.stdin.write("go\n")
                follower.wait_for(n)
            child.stdin.close()
        follower.stop()
        medians.append(statistics.median(follower.delays_ms))
    print(medians)
    return min(medians)


def test_other_process_is_woken_within_5_ms(path: Path, open_sqlite: OpenSQLite) -> None:
    assert median_delay_ms(path, open_sqlite()) < 5


def test_without_inotify_another_process_is_noticed_about_20_ms_later(
    path: Path, open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(path: str) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("sse.log.sqlite.wakeup.Watch", none_left)
    assert median_delay_ms(path, open_sqlite()) < 35


def test_last_other_connection_may_go_and_come_back(
    path: Path, open_sqlite: OpenSQLite, follow: Callable[..., Follower]
) -> None:
    """The last writer of another process to close takes the -wal file with it if nobody else is there."""
    log = open_sqlite()
    follower = follow(log)
    for n in range(1, 4):
        run(
            """
import sys
from sse.events.model import Event
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=100, retain_seconds=100)
log.append([Event("a", "x")])
log.close()
""",
            path,
        )
        follower.wait_for(n, 0.8)


IDLE = """
import sys, threading, time
from sse.events.model import Event
from sse.log import _wakeup
from sse.log.sqlite.engine import SQLiteLog
path, way, seconds = sys.argv[1:]
if way == "polling":
    def none_left(path):
        raise OSError
    _wakeup.Watch = none_left
log = SQLiteLog(path, retain_events=100, retain_seconds=1000)
log.append([Event("a", "x")] * 50)
stop = threading.Event()
follower = threading.Thread(target=lambda: [None for _ in log.follow(0, stop)])
follower.start()
time.sleep(0.2)
before = time.process_time()
until = time.monotonic() + float(seconds)
while time.monotonic() < until:
    log.trim()
    time.sleep(1)
print((time.process_time() - before) / float(seconds))
stop.set(); log.wake(); follower.join(); log.close()
"""


@pytest.mark.parametrize(
    ("way", "most"),
    [pytest.param("inotify", 0.01, id="inotify"), pytest.param("polling", 0.03, id="polling, the fallback")],
)
def test_idle_worker_takes_hardly_any_of_a_core(path: Path, way: str, most: float) -> None:
    (share,) = run(IDLE, path, way, 1.5)
    assert float(share) < most
