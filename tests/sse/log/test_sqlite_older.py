"""Files from before channels were counted, and programs from before that use the same file during a rolling update."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sse.events.model import Event, make_position
from sse.log import Bounds, ChannelClosed, RetainRule
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.conftest import Follower, data, fill, trim_all
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]
LIMIT, BYTES = 100_000, 1 << 30

# The tables as that program made them, to the letter.
TABLES = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE events (position INTEGER PRIMARY KEY, channel TEXT NOT NULL, event TEXT, retry INTEGER, data TEXT NOT NULL);
    CREATE INDEX events_by_channel ON events (channel);
    CREATE TABLE publishes (key TEXT PRIMARY KEY, digest BLOB NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX publishes_by_age ON publishes (created);
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE traces (first INTEGER PRIMARY KEY, last INTEGER, parent TEXT);
    PRAGMA application_id = 0x48575452;
    PRAGMA user_version = 1;
"""


class OlderProgram:
    """The program of before, as far as the file is concerned: it makes it, appends, and trims."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None, timeout=5)
        if not self.database.execute("SELECT 1 FROM sqlite_master").fetchone():
            self.database.executescript(TABLES)
            created = make_position(time.time_ns() // 1_000_000)
            marks = [("trimmed", created), ("removed", 0), ("checkpoints", 0)]
            self.database.executemany("INSERT INTO meta VALUES (?, ?)", marks)
            path.with_name(path.name + "-upkeep").touch()

    def append(self, *channels: str) -> list[int]:
        self.database.execute("BEGIN IMMEDIATE")
        (last,) = self.database.execute(
            "SELECT ifnull((SELECT max(position) FROM events), (SELECT value FROM meta WHERE name = 'trimmed'))"
        ).fetchone()
        first = max(make_position(time.time_ns() // 1_000_000), last + 1)
        rows = [(first + n, channel, None, None, str(n)) for n, channel in enumerate(channels)]
        self.database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
        self.database.execute("COMMIT")
        return [row[0] for row in rows]

    def trim(self, keep: int) -> int:
        oldest = "SELECT position FROM events ORDER BY position LIMIT max((SELECT count(*) FROM events) - ?, 0)"
        bite = self.database.execute(oldest, (keep,)).fetchall()
        if bite:
            self.database.execute("BEGIN IMMEDIATE")
            self.database.execute("DELETE FROM events WHERE position <= ?", bite[-1])
            self.database.execute("UPDATE meta SET value = ? WHERE name = 'trimmed'", bite[-1])
            self.database.execute("UPDATE meta SET value = value + ? WHERE name = 'removed'", (len(bite),))
            self.database.execute("COMMIT")
        return len(bite)


@pytest.fixture
def older(path: Path) -> Iterator[OlderProgram]:
    program = OlderProgram(path)
    with closing(program.database):
        yield program


# ── its files ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_lost_nothing_is_known_from_its_beginning(older: OlderProgram, open_sqlite: OpenSQLite) -> None:
    positions = older.append("a", "b", "a")
    log = open_sqlite()
    bounds = log.bounds()
    assert bounds == Bounds(positions[0], positions[-1], bounds.began, 0, bounds.began) and bounds.complete
    assert bounds.began < positions[0]
    assert log.gone(["a", "*"], 0) == log.gone(None, 0) == 0
    assert [(info.channel, info.events, info.bytes) for info in log.channels()] == [("a", 2, 2), ("b", 1, 1)]
    assert data(log.read(["a"], positions[0], LIMIT, BYTES)) == ["2"]
    # And from now on it is exact.
    log.retain(2, 86_400)
    assert log.trim() == 1
    assert (log.gone(["a"], 0), log.gone(["b"], 0)) == (positions[0], 0)


def test_of_a_file_that_was_trimmed_anything_may_be_gone_up_to_there(
    older: OlderProgram, open_sqlite: OpenSQLite
) -> None:
    positions = older.append("a", "b", "a", "b", "c")
    older.trim(3)
    log = open_sqlite()
    bounds = log.bounds()
    assert bounds[:4] == (positions[2], positions[4], positions[1], 0) and bounds.began == 0 and not bounds.complete
    for channels in (["a"], ["nobody"], ["c", "x*"], ["*"], None):
        assert log.gone(channels, positions[0]) == positions[1]
        assert log.gone(channels, positions[1]) == 0
    log.retain(2, 86_400)
    assert log.trim() == 1
    assert log.gone(["a"], positions[1]) == positions[2]
    assert log.gone(["b"], positions[1]) == 0 and log.gone(["b"], positions[0]) == positions[1]


def test_its_clients_resume_where_they_were(
    older: OlderProgram, open_sqlite: OpenSQLite, follow: Callable[..., Follower]
) -> None:
    positions = older.append("a", "b", "a")
    log = open_sqlite()
    follower = follow(log, positions[0])
    new = fill(log, "ab")
    follower.wait_for(4)
    assert [record.position for record in follower.records] == positions[1:] + new


def test_its_file_is_opened_by_many_workers_at_once_and_again(older: OlderProgram, open_sqlite: OpenSQLite) -> None:
    older.append("a", "a")
    older.trim(1)
    logs = [open_sqlite() for _ in range(4)]
    assert len({log.bounds() for log in logs}) == 1
    logs[0].append([], close=["a"])
    for log in logs:
        log.close()
    again = open_sqlite()
    assert again.closed(["a"]).keys() == {"a"} and again.bounds().began == 0


# ── at once ─────────────────────────────────────────────────────────────────────────────────────────────


def test_what_it_trims_meanwhile_may_be_gone_of_any_channel_at_once(
    older: OlderProgram, open_sqlite: OpenSQLite
) -> None:
    log = open_sqlite()
    mine = fill(log, ["a", "b"])
    theirs = older.append("a", "c")
    log.trim()
    assert log.gone(["a", "nobody"], 0) == 0
    older.trim(1)
    for _ in range(2):  # before anybody has taken notice, and after
        for channels in (["a"], ["nobody"], ["q*"], None):
            assert log.gone(channels, mine[0]) == theirs[0]
        assert log.gone(["a"], theirs[0]) == 0
        assert [(info.channel, info.events) for info in log.channels()] == [("c", 1)]
        log.trim()
    assert log.bounds().trimmed == theirs[0] and log.bounds().began > 0


def test_positions_and_counts_stay_right_while_both_write_and_trim(
    older: OlderProgram, open_sqlite: OpenSQLite
) -> None:
    chance = random.Random(1)
    log = open_sqlite(retain_events=60)
    stored: list[tuple[int, str]] = []
    for _ in range(150):
        channels = [chance.choice("abc") for _ in range(chance.randrange(1, 5))]
        if chance.random() < 0.5:
            stored += zip(older.append(*channels), channels, strict=True)
        else:
            stored += zip(fill(log, channels), channels, strict=True)
        if chance.random() < 0.2:
            older.trim(chance.choice((40, 70)))
        if chance.random() < 0.2:
            trim_all(log)
            assert len(log.read(None, 0, LIMIT, BYTES)) <= 60
        if chance.random() < 0.2:
            held = [record.channel for record in log.read(None, 0, LIMIT, BYTES)]
            assert {info.channel: info.events for info in log.channels()} == {c: held.count(c) for c in set(held)}
    positions = [position for position, _ in stored]
    assert positions == sorted(set(positions))
    held = {record.position for record in log.read(None, 0, LIMIT, BYTES)}
    assert held == set(positions[-len(held) :])
    for channel in "abc":
        lost = max(position for position, name in stored if name == channel and position not in held)
        assert log.gone([channel], 0) >= lost


def test_it_does_not_know_that_a_channel_is_closed_and_harms_nobody_by_it(
    older: OlderProgram, open_sqlite: OpenSQLite
) -> None:
    log = open_sqlite()
    (end,) = log.append([], close=["a"])
    (late,) = older.append("a")
    assert late > end and log.closed(["a"]) == {"a": end}
    with pytest.raises(ChannelClosed):
        log.append([Event("a", "x")])
    assert log.erase("a").events == 1
    assert fill(log, "a") and older.append("a")


def test_it_trims_by_its_own_rules_and_marks_what_it_knows(older: OlderProgram, open_sqlite: OpenSQLite) -> None:
    """Its mark may go back below what a rule has trimmed; ours does not."""
    log = open_sqlite()
    log.retain(100, 86_400, [RetainRule("brief", None, 0.05)])
    kept = fill(log, ["lasting"] * 5)
    (brief,) = fill(log, ["brief"])
    eventually(lambda: log.trim() == 1)
    older.trim(3)
    assert log.bounds().trimmed == brief
    assert log.gone(["lasting"], 0) == kept[1] and log.gone(["brief"], 0) == brief
    assert fill(log, ["x"])[0] > brief
