"""What a SQLite log knows of its channels: never by reading the log, and it forgets in the safe direction only."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sse.events.model import Event
from sse.log import RetainRule
from sse.log.sqlite import retain
from sse.log.sqlite.engine import SQLiteLog
from sse.log.sqlite.file import connect
from tests.sse.log.conftest import fill, trim_all
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]


class Steps:
    """Counts the instructions of SQLite's virtual machine on a connection."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.count = 0
        database.set_progress_handler(self._step, 1)

    def _step(self) -> int:
        self.count += 1
        return 0

    def of(self, work: Callable[[], object]) -> int:
        before = self.count
        work()
        return self.count - before


@pytest.mark.usefixtures("no_grace")
def test_what_is_due_is_found_without_reading_the_log(open_sqlite: OpenSQLite) -> None:
    log = open_sqlite()
    log.append([Event(f"kept:{n % 50}", "x" * 50) for n in range(20_000)])
    rules = [RetainRule("kept:*", 1000, 86_400), RetainRule("few:*", 2, None), RetainRule("brief:*", None, 0.05)]
    log.retain(10, 86_400, rules)
    assert trim_all(log) == 0
    steps = Steps(log._upkeep._idle[0])
    idle = steps.of(log.trim)
    log.append([Event(name, "x") for name in ["few:1"] * 5 + ["brief:1"] * 2 + ["rest"] * 12])
    time.sleep(0.1)
    removed: list[int] = []
    assert steps.of(lambda: removed.append(log.trim())) < 12_000
    assert removed == [3 + 2 + 2]
    assert idle < 2000


def test_what_a_pattern_matches_is_read_without_the_rest_of_the_log(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    log.append([Event("busy", "x" * 50)] * 20_000 + [Event(f"quiet:{n % 3}", str(n)) for n in range(9)])
    log.append([], close=["quiet:closed"])
    log.trim()
    log.append([Event("busy", "x"), Event("quiet:new", "9")])  # not counted yet
    reader = log._readers.pop() if log._readers else connect(str(path))
    log._readers.append(reader)
    steps = Steps(reader)
    for use in (
        lambda: log.read(["quiet:*"], 0, 100, 1 << 30),
        lambda: log.newest(["quiet:*", "nobody"], 100, 1 << 30),
        lambda: log.floor(["quiet:*"], 0, 5),
        lambda: log.read(["none:*"], 0, 100, 1 << 30),
        lambda: log.read(["*"], 0, 5, 1 << 30),
    ):
        assert 0 < steps.of(use) < 2500
    assert [record.data for record in log.read(["quiet:*"], 0, 100, 1 << 30) if record.event is None] == [*"0123456789"]


def test_what_is_known_of_channels_is_told_without_reading_the_log(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    log.append([Event(f"c:{n % 50}", "x" * 50) for n in range(20_000)])
    log.append([], close=["c:1"])
    log.trim()
    reader = log._readers.pop() if log._readers else connect(str(path))
    log._readers.append(reader)
    steps = Steps(reader)
    for use, most in (
        (lambda: log.channels("c:", "", 1000), 10_000),
        (lambda: log.gone(["c:1", "c:2"], 0), 200),
        (lambda: log.gone(["*"], 0), 2000),
        (lambda: log.closed(["c:1", "c:2"]), 200),
    ):
        assert 0 < steps.of(use) < most


def test_new_records_are_counted_once_by_whoever_comes_first(open_sqlite: OpenSQLite, path: Path) -> None:
    logs = [open_sqlite() for _ in range(3)]
    for turn in range(30):
        fill(logs[turn % 3], "ab" * (1 + 211 * (turn % 3)))
        (logs[0].trim, logs[1].channels, logs[2].trim)[turn % 3]()
    count = sum(1 for _ in logs[0].read(None, 0, 10**6, 1 << 30))
    assert [(info.channel, info.events) for info in logs[1].channels()] == [("a", count // 2), ("b", count // 2)]


def test_marks_of_empty_channels_are_forgotten_beyond_a_number(
    open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retain, "GONE_MOST", 3)
    log = open_sqlite(retain_events=1)
    positions = fill(log, ["c0", "c1", "c2", "c3", "c4", "c0"])
    trim_all(log)
    log._upkeep._expire_at = 0.0
    log.trim()
    # Of c1 to c4, one too many, the one that was trimmed longest ago: coarse from now on, for all channels.
    assert log.gone(["c1"], 0) == log.gone(["nobody"], 0) == positions[1]
    assert [log.gone([f"c{n}"], 0) for n in (2, 3, 4)] == positions[2:5]
    assert log.gone(["c0"], 0) == positions[1], "no less than the coarse mark"
    assert log.gone(["nobody"], positions[1]) == 0


def test_marks_of_empty_channels_are_forgotten_after_a_month(
    open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 31 * 86_400 * 10**9)
    log = open_sqlite(retain_events=1)
    (old,) = fill(log, ["old"])
    monkeypatch.setattr(time, "time_ns", real)
    (young,) = fill(log, ["young"])
    fill(log, ["now"])
    trim_all(log)
    log._upkeep._expire_at = 0.0
    log.trim()
    assert log.gone(["nobody"], 0) == old
    assert log.gone(["young"], 0) == young
    with closing(sqlite3.connect(log._path)) as database:
        assert database.execute("SELECT channel FROM channels ORDER BY 1").fetchall() == [("now",), ("young",)]


def test_notes_that_have_expired_are_removed(open_sqlite: OpenSQLite, path: Path) -> None:
    log = open_sqlite()
    log.put_note("k", "short", "x", 0.02)
    log.put_note("k", "long", "x", 60)
    eventually(lambda: log.notes("k").keys() == {"long"})
    log._upkeep._expire_at = 0.0
    log.trim()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM notes").fetchall() == [("long",)]


@pytest.mark.usefixtures("no_grace")
def test_rules_that_change_while_channels_are_classed_are_the_ones_that_count(
    open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retain, "_CLASS_SECONDS", 0.0)
    log = open_sqlite()
    log.append([Event(f"c{n}", "x") for n in range(2500)] * 2)
    log.retain(10**6, 86_400, [RetainRule("c1*", 1, None)])
    assert log.trim() == 0, "only the first thousand have their class"
    log.retain(10**6, 86_400, [RetainRule("c2*", 1, None)])
    eventually(lambda: log.trim() > 0)
    trim_all(log)
    events = {info.channel: info.events for name in ("c1", "c2", "c3") for info in log.channels(name)}
    assert {name for name, count in events.items() if count == 1} == {name for name in events if name.startswith("c2")}
