"""Traces travel with their events, in every engine, and logs from before there were any are read and written on."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sse.events.model import Event, Record
from sse.events.trace import Trace
from sse.log import Log
from sse.log.base import Batch
from sse.log.redis.engine import RedisLog
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.conftest import Place, data, events, fill
from tests.sse.log.redis_place import redis_server
from tests.support.wait import eventually

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def followed(log: Log, after: int, count: int) -> tuple[list[Record], list[Trace]]:
    """So many records after a position, and the traces that came with them; each with or before its first event."""
    stop, records, traces = threading.Event(), list[Record](), list[Trace]()
    deadline = time.monotonic() + 5
    for batch in log.follow(after, stop):
        if isinstance(batch, Batch):
            assert batch[0].position <= batch.traces[0].first
            traces += batch.traces
        records += batch
        if len(records) >= count or time.monotonic() > deadline:
            break
    assert len(records) == count
    return records, traces


def test_a_follower_is_given_the_trace_of_a_publish(place: Place) -> None:
    log = place.open()
    after = fill(log, "a")[-1]
    (one,) = log.append([Event("a", "1")], trace=PARENT)
    fill(log, "bb")
    (two,) = log.append([Event("a", "2", "kind", 5)], trace=PARENT)
    reader = place.open() if log.shared else log
    records, traces = followed(reader, after, 4)
    assert data(records) == ["1", "0", "1", "2"]
    assert records[3][2:4] == ("kind", 5) and records[0][2:4] == (None, None)
    assert traces == [Trace(one, one, PARENT), Trace(two, two, PARENT)]
    assert followed(reader, one, 3)[1] == traces[1:], "only what begins after its cursor"


def test_a_batch_has_one_trace_that_says_how_far_it_reaches(log: Log) -> None:
    positions = log.append([Event("ab"[n % 2], "x" * 2000) for n in range(1500)], trace=PARENT)
    records, traces = followed(log, positions[0] - 1, 1500)
    assert [record.position for record in records] == positions
    assert traces == [Trace(positions[0], positions[-1], PARENT)]


def test_a_repeated_publish_has_no_second_trace(log: Log) -> None:
    (first,) = log.append(events("a"), key="k", digest=b"1", trace=PARENT)
    assert log.append(events("a"), key="k", digest=b"1", trace=PARENT) == [first]
    fill(log, "a")
    assert followed(log, first - 1, 2)[1] == [Trace(first, first, PARENT)]


def test_without_a_trace_batches_are_plain_lists(log: Log) -> None:
    first = fill(log, "aab")[0]
    for batch in log.follow(first - 1, threading.Event()):
        assert type(batch) is list
        break


def test_replay_reads_traced_events_like_any_other(log: Log) -> None:
    (first,) = log.append([Event("a", "1")], trace=PARENT)
    (second,) = log.append([Event("a", "2", "kind", 7)], trace=PARENT)
    expected = [Record(first, "a", None, None, "1"), Record(second, "a", "kind", 7, "2")]
    for channels in (None, ["a"]):
        assert log.read(channels, 0, 10, 10**6) == log.newest(channels, 10, 10**6) == expected


# --- SQLite -------------------------------------------------------------------------------------------------

# The file as it was made before there were traces, to the letter.
BEFORE = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE events (position INTEGER PRIMARY KEY, channel TEXT NOT NULL, event TEXT, retry INTEGER, data TEXT NOT NULL);
    CREATE INDEX events_by_channel ON events (channel);
    CREATE TABLE publishes (key TEXT PRIMARY KEY, digest BLOB NOT NULL, first INTEGER NOT NULL,
        count INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX publishes_by_age ON publishes (created);
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('trimmed', 1000), ('removed', 0), ('checkpoints', 0);
    INSERT INTO events VALUES (1001, 'a', NULL, NULL, 'old'), (1002, 'a', 'kind', 5, 'older');
    PRAGMA application_id = 0x48575452;
    PRAGMA user_version = 1;
"""


def test_a_file_from_before_is_opened_read_and_written_on(path: Path, open_sqlite: Callable[..., SQLiteLog]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as before:
        before.executescript(BEFORE)
    log, other = open_sqlite(), open_sqlite()
    assert data(log.read(["a"], 0, 10, 1000)) == ["old", "older"]
    (position,) = other.append([Event("a", "new")], trace=PARENT)
    records, traces = followed(log, 1000, 3)
    assert data(records) == ["old", "older", "new"]
    assert traces == [Trace(position, position, PARENT)]


def test_a_program_from_before_can_use_the_same_file(path: Path, open_sqlite: Callable[..., SQLiteLog]) -> None:
    """During a reload it does: its statements, its format, and its own look at the tables."""
    log = open_sqlite()
    (position,) = log.append([Event("a", "new")], trace=PARENT)
    with contextlib.closing(sqlite3.connect(path)) as before:
        assert before.execute("PRAGMA user_version").fetchone() == (1,)
        before.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (position + 1, "a", None, None, "theirs"))
        before.commit()
        assert [len(row) for row in before.execute("SELECT * FROM events")] == [5, 5]
    assert data(followed(log, position - 1, 2)[0]) == ["new", "theirs"]


def test_traces_are_forgotten_when_nobody_can_want_them_any_more(
    path: Path, open_sqlite: Callable[..., SQLiteLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_sqlite()
    log.append([Event("a", "1")], trace=PARENT)

    def kept() -> int:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return int(database.execute("SELECT count(*) FROM traces").fetchone()[0])

    log.trim()
    assert kept() == 1
    monkeypatch.setattr("sse.log.sqlite.upkeep._TRACE_SECONDS", -10)
    log._upkeep._expire_at = 0
    assert log.trim() == 1 and kept() == 0
    assert data(log.read(None, 0, 10, 100)) == ["1"]


# --- Redis --------------------------------------------------------------------------------------------------


def read_before(fields: list[bytes]) -> tuple[bytes, ...]:
    """How a program from before takes an entry apart; it leaves out what it cannot."""
    if len(fields) == 4:
        c, channel, d, data = fields
        return c, channel, d, data
    c, channel, d, data, _, kind, _, delay = fields
    return c, channel, d, data, kind, delay


def test_entries_in_redis_are_read_by_programs_from_before_and_of_theirs_all_is_read(request: pytest.FixtureRequest) -> None:
    server = redis_server(request)
    with contextlib.closing(RedisLog.from_url(server.url, retain_events=100, retain_seconds=1000)) as log:
        after = log.append([Event("a", "0")])[0]
        server.run("XADD", "{headwater}:events", "*", "c", "a", "d", "theirs")
        server.run("XADD", "{headwater}:events", "*", "c", "a", "d", "theirs too", "e", "kind", "r", "9")
        (first, second) = log.append([Event("a", "1"), Event("a", "2", "kind")], trace=PARENT)
        entries = log._client.one("XRANGE", "{headwater}:events", "-", "+")
        assert [read_before(entry[1]) for entry in entries[-2:]] == [
            (b"c", b"a", b"d", b"1", b"", b""),
            (b"c", b"a", b"d", b"2", b"kind", b""),
        ]
        assert entries[0][1] == [b"c", b"a", b"d", b"0"], "an event without a trace costs no byte more"
        records, traces = followed(log, after, 4)
        assert [record[2:] for record in records] == [
            (None, None, "theirs"),
            ("kind", 9, "theirs too"),
            (None, None, "1"),
            ("kind", None, "2"),
        ]
        assert traces == [Trace(first, second, PARENT)]
        eventually(lambda: log.bounds().latest == second)
