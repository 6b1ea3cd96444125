"""Erasing in a SQLite log: no byte is left in its files, nothing else is touched, and nobody waits long."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sse.events.model import Event
from sse.log import LogUnavailable, RetainRule
from sse.log.sqlite import erase, rewrite
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.children import run, start
from tests.sse.log.conftest import Follower
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]
LIMIT, BYTES = 100_000, 1 << 30

# In a process of its own: closing the file in this one would drop SQLite's locks.
COUNT = """
import sys
path, needle = sys.argv[1:]
for name in (path, path + "-wal"):
    try:
        print(open(name, "rb").read().count(needle.encode()))
    except FileNotFoundError:
        print(0)
"""


def left_in_files(path: Path, channel: str) -> int:
    """Count what is left of the ``secret``s of a channel. (Six bytes are no accident, as three may be.)"""
    return sum(map(int, run(COUNT, path, f"{channel}><{channel}")))


def secret(channel: str, size: int) -> Event:
    """An event whose data is made of its channel's name, so that any part of it can be told."""
    return Event(channel, (f"<{channel}>" * (size // len(channel) + 1))[:size])


def sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return database.execute("PRAGMA integrity_check").fetchone() == ("ok",) and "rewritten" not in tables


def live(log: SQLiteLog) -> list[tuple[int, str, str]]:
    return [(r.position, r.channel, r.data) for r in log.read(None, 0, LIMIT, BYTES) if r.event is None]


# Follows and reads the log, until its standard input ends.
READER = """
import sys, threading
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10**9, retain_seconds=10**6)
stop = threading.Event()
def follow():
    for batch in log.follow(0, stop):
        pass
def read():
    while not stop.wait(0.01):
        log.read(None, 0, 1000, 1 << 20)
        log.channels()
threads = [threading.Thread(target=work) for work in (follow, read)]
for thread in threads: thread.start()
print("ready", flush=True)
sys.stdin.read()
stop.set(); log.wake()
for thread in threads: thread.join()
log.close()
"""


def random_life(log: SQLiteLog, chance: random.Random) -> list[str]:
    """Publish, trim and erase as chance has it; return the channels."""
    channels = [f"c{n}" for n in range(chance.choice((2, 5, 30)))]
    size = chance.choice((20, 100, 800, 3000, 9000))
    log.retain(10**6, 10**6, [RetainRule(name, chance.randrange(1, 60), None) for name in channels[::2]])
    for _ in range(chance.randrange(5, 40)):
        log.append([secret(chance.choice(channels), chance.randrange(size)) for _ in range(chance.choice((1, 3, 50)))])
        match chance.randrange(6):
            case 0 | 1:
                log.trim()
            case 2:
                log.retain(chance.randrange(20, 300), 10**6)
                log.trim()
    return channels


@pytest.mark.usefixtures("no_grace")
@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 100))]
)
def test_no_byte_of_an_erased_channel_is_left_in_the_files(
    path: Path, open_sqlite: OpenSQLite, follow: Callable[..., Follower], seed: int
) -> None:
    chance = random.Random(seed)
    log = open_sqlite()
    follower = follow(log)
    with start(READER, path, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None and child.stdout.readline() == "ready\n"
        channels = random_life(log, chance)
        victim = chance.choice(channels)
        log.append([secret(victim, 500)])
        assert left_in_files(path, victim) > 0
        others = [row for row in live(log) if row[1] != victim]
        through = log.erase(victim).through
        assert left_in_files(path, victim) == 0
        assert live(log) == others
        # And nobody who had its pages in memory writes them back.
        log.append([Event("next", "x" * 100)] * 50)
        log.trim()
        assert left_in_files(path, victim) == 0
        child.stdin.close()
        assert child.wait(10) == 0
    assert sound(path)
    eventually(lambda: follower.records and follower.records[-1].position > through)
    assert follower.error is None


def test_what_happens_while_the_log_is_rewritten_is_neither_lost_nor_undone(
    open_sqlite: OpenSQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are published, trimmed, by this program and an older one, and erased between any two bites."""
    monkeypatch.setattr(rewrite, "_FIRST_BITE", 7)
    monkeypatch.setattr(rewrite, "_MOST", 7)
    chance = random.Random(5)
    log, other = open_sqlite(), open_sqlite(retain_events=700)
    names = [f"c{n}" for n in range(8)]
    log.append([secret(chance.choice(names), 300) for _ in range(900)])
    expected = live(log)
    steps: list[int] = []

    def meanwhile(bites: object) -> None:
        steps.append(1)
        if len(steps) == 20:
            erase.remove(str(path), "c5", 0)
            expected[:] = [row for row in expected if row[1] != "c5"]
        match chance.randrange(4):
            case 0 | 1:
                new = [secret(chance.choice(names[1:]), 300) for _ in range(chance.randrange(4))]
                expected.extend((p, e.channel, e.data) for p, e in zip(log.append(new), new, strict=True))
            case 2:
                with closing(sqlite3.connect(path, isolation_level=None)) as older:
                    ((oldest,),) = older.execute("SELECT max(position) FROM (SELECT position FROM events ORDER BY position LIMIT 3)")
                    older.execute("BEGIN IMMEDIATE")
                    older.execute("DELETE FROM events WHERE position <= ?", (oldest,))
                    older.execute("UPDATE meta SET value = ? WHERE name = 'trimmed'", (oldest,))
                    older.execute("UPDATE meta SET value = value + 3 WHERE name = 'removed'")
                    older.execute("COMMIT")
                expected[:] = [row for row in expected if row[0] > oldest]
            case 3 if len(steps) % 9 == 0:
                other.trim()
                kept = {row[0] for row in live(other)}
                expected[:] = [row for row in expected if row[0] in kept]

    monkeypatch.setattr(rewrite._Bites, "_checkpoint", meanwhile)
    log.erase("c0")
    assert len(steps) > 50
    expected = [row for row in expected if row[1] != "c0"]
    assert live(log) == live(other) == expected
    assert sound(path)
    assert left_in_files(path, "c0") == 0


KILLED = """
import os, signal, sys, threading, time
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10**9, retain_seconds=10**6)
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
log.erase("victim")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_in_the_middle_leaves_nothing_half_done(
    path: Path, open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_sqlite()
    outcomes = set()
    for turn in range(8):
        log.append([secret("victim" if n % 2 else f"c{n % 7}", 400) for n in range(6000)])
        before = live(log)
        with start(KILLED, path, 0.02 * 1.6**turn) as child:
            child.wait(20)
        after = live(log)
        gone = [row for row in before if row[1] != "victim"]
        assert after in (before, gone), "all of its events are there, or none"
        outcomes.add(after == gone)
        marker = log.newest(["victim"], 1, BYTES)[-1].event
        assert (marker == "stream-reset") == (after == gone)
    assert True in outcomes
    # What was left behind is tidied up by the upkeep, and does not disturb the next erasure.
    monkeypatch.setattr(log._upkeep, "_expire_at", 0.0)
    log.trim()
    assert sound(path)
    log.append([secret("victim", 400)])
    log.erase("victim")
    assert left_in_files(path, "victim") == 0 and live(log) == gone


def test_erasures_at_once_share_the_work(
    path: Path, open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = open_sqlite(), open_sqlite()
    names = [f"c{n}" for n in range(6)]
    log.append([secret(names[n % 6], 300) for n in range(2000)])
    rewritings: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def counted(path: str, rewrite: Callable[[str], None] = rewrite.rewrite) -> None:
        rewritings.append(path)
        begun.set()
        assert go_on.wait(10)
        rewrite(path)

    monkeypatch.setattr("sse.log.sqlite.erase.rewrite", counted)
    threads = [threading.Thread(target=(log, other)[n % 2].erase, args=(names[n],)) for n in range(5)]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    eventually(lambda: {channel for _, channel, _ in live(log)} == {"c5"}, message="they wait before they remove")
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(rewritings) <= 2
    assert [left_in_files(path, name) for name in names[:5]] == [0] * 5
    assert left_in_files(path, "c5") > 0


def test_a_reader_that_keeps_the_old_state_is_told_of(
    path: Path, open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "_TRUNCATE_SECONDS", 0.3)
    log = open_sqlite()
    log.append([secret("a", 100), secret("b", 100)])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchone()
        with pytest.raises(LogUnavailable, match="readers.*bytes of them may be left") as refusal:
            log.erase("a")
        assert refusal.value.stored == "unknown"
        assert [row[1] for row in live(log)] == ["b"], "nobody reads them any more"
    log.erase("a")
    assert left_in_files(path, "a") == 0


def test_an_erasure_that_finds_no_room_removes_all_the_same_and_harms_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SQLiteLog(str(small_disk / "log.db"), retain_events=10**6, retain_seconds=10**6)
    with closing(log):
        log.append([secret("a", 1000)] * 50 + [secret("b", 1000)] * 300)
        log._upkeep._checkpoint_at = 0.0
        log.trim()
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - 250_000)  # enough to remove, not to copy
        with pytest.raises(LogUnavailable, match="full.*bytes of them may be left"):
            log.erase("a")
        assert len(live(log)) == 300
        filler.unlink()
        assert log.append([secret("b", 10)])
        log.erase("a")
        assert left_in_files(small_disk / "log.db", "a") == 0 and len(live(log)) == 301
        assert sound(small_disk / "log.db")


def test_publishers_wait_for_the_removal_only(path: Path, open_sqlite: OpenSQLite) -> None:
    """Not for the rewriting: while that goes on, appends of another connection succeed all the time."""
    log, other = open_sqlite(), open_sqlite()
    for _ in range(20):
        log.append([secret("a" if n % 2 else "b", 200) for n in range(1000)])
    stored: list[int] = []
    done = threading.Event()

    def publish() -> None:
        while not done.is_set():
            stored.extend(other.append([Event("live", "x")]))

    publisher = threading.Thread(target=publish)
    publisher.start()
    through = log.erase("a").through
    done.set()
    publisher.join(10)
    assert sum(position > through for position in stored) > 20
    assert [row[0] for row in live(log) if row[1] == "live"] == stored
