"""A restored backup loses the events given out since, and clients that resume are told. A plain restart tells nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sse.events.model import Event
from sse.log.sqlite import place
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.children import start
from tests.sse.log.conftest import Follower

Open = Callable[..., SQLiteLog]


def event(data: str) -> list[Event]:
    return [Event("a", data)]


def open_at(path: Path) -> SQLiteLog:
    return SQLiteLog(str(path), retain_events=1000, retain_seconds=86_400)


def vacuum_into(path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("VACUUM INTO ?", (str(backup),))


def copy_into(path: Path, backup: Path) -> None:
    """SQLite's own online backup, in either direction."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)


def remove_beside(path: Path) -> None:
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)


def renamed(path: Path, backup: Path) -> Path:
    remove_beside(path)
    os.replace(backup, path)
    return path


def copied_over(path: Path, backup: Path) -> Path:
    remove_beside(path)
    shutil.copyfile(backup, path)
    return path


def restored_online(path: Path, backup: Path) -> Path:
    copy_into(backup, path)
    return path


def elsewhere(path: Path, backup: Path) -> Path:
    other = path.parent / "elsewhere"
    other.mkdir()
    shutil.copyfile(backup, other / path.name)
    return other / path.name


@pytest.mark.parametrize("back_up", [vacuum_into, copy_into])
@pytest.mark.parametrize("restore", [renamed, copied_over, restored_online, elsewhere])
def test_restored_backup_is_told_to_every_cursor_from_before_it_was_restored(
    path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    back_up: Callable[[Path, Path], None],
    restore: Callable[[Path, Path], Path],
) -> None:
    log = open_at(path)
    (kept,) = log.append(event("kept"))
    back_up(path, tmp_path / "backup.db")
    gone = [log.append(event("gone"))[0] for _ in range(3)]
    log.trim()  # as a worker does each second
    log.close()
    path = restore(path, tmp_path / "backup.db")
    with closing(open_at(path)) as log:
        bounds = log.bounds()
        assert kept < gone[-1] < bounds.lost <= bounds.latest
        assert [record.position for record in log.read(None, 0, 10, 1000)] == [kept]
        (new,) = log.append(event("new"))
        assert new > bounds.lost and log.bounds().latest == new
    assert "Clients that resume are told" in caplog.text
    caplog.clear()
    with closing(open_at(path)) as log:  # who is away during the first start is told after the second
        assert log.bounds().lost == bounds.lost
    assert not caplog.records


def test_directory_that_is_restored_as_a_whole_is_told(path: Path, tmp_path: Path) -> None:
    """Its own line comes with it, and is that of another file."""
    data = tmp_path / "data"
    data.mkdir()
    with closing(open_at(data / "log.db")) as log:
        log.append(event("kept"))
        log.trim()
    shutil.copytree(data, tmp_path / "backup")
    with closing(open_at(data / "log.db")) as log:
        (gone,) = log.append(event("gone"))
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)
    with closing(open_at(data / "log.db")) as log:
        assert log.bounds().lost > gone


KILLED = """
import os, sys
from sse.events.model import Event
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10, retain_seconds=1000)
log.append([Event("a", "x")] * 100)
while log.trim(): pass
log.append([Event("a", "x")])
os.kill(os.getpid(), 9)
"""


def test_plain_restarts_tell_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with closing(open_at(path)) as log:
            assert log.bounds().lost == 0
            log.append(event("x"))
            log.trim()
    with start(KILLED, path) as child:
        child.wait(10)
    with closing(open_at(path)) as log:
        assert log.bounds().lost == 0 and len(log.read(None, 0, 1000, 1000)) == 11
        log.retain(1, 1e-9)  # and one that holds nothing any more
        while log.trim():
            pass
        assert log.bounds().oldest is None
    with closing(sqlite3.connect(path)) as database:
        database.execute("VACUUM")
    with closing(open_at(path)) as log:
        assert log.bounds().lost == 0
    assert not caplog.records


def test_log_of_an_older_version_is_taken_as_it_is(path: Path) -> None:
    with closing(open_at(path)) as log:
        log.append(event("x"))
    beside = path.with_name(path.name + "-upkeep")
    beside.write_bytes(b"")
    with closing(open_at(path)) as log:
        assert log.bounds().lost == 0
    assert place.look(str(path)) is not None, "not noted from here on"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda beside: beside.unlink(), id="removed, as the docs say for a snapshot"),
        pytest.param(lambda beside: beside.write_text("1 2"), id="cut"),
        pytest.param(lambda beside: beside.write_text("one two three"), id="no numbers"),
        pytest.param(lambda beside: beside.write_bytes(b"\xff" * 80), id="no text"),
    ],
)
def test_line_that_cannot_be_read_is_taken_for_a_setback(path: Path, spoil: Callable[[Path], None]) -> None:
    with closing(open_at(path)) as log:
        (position,) = log.append(event("x"))
    spoil(path.with_name(path.name + "-upkeep"))
    with closing(open_at(path)) as log:
        assert log.bounds().lost > position


def test_commits_that_a_power_cut_took_are_told(path: Path) -> None:
    """They were in the write-ahead log's last pages, which never got to the disk."""
    with closing(open_at(path)) as log:
        log.append(event("kept"))
        log._upkeep._checkpoint_at = 0
        log.trim()
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        before = path.read_bytes()
        (gone,) = log.append(event("gone"))
        log.trim()
    remove_beside(path)
    with path.open("r+b") as file:
        file.write(before)
    with closing(open_at(path)) as log:
        assert log.bounds().lost > gone and len(log.read(None, 0, 10, 100)) == 1


def test_new_events_reach_followers_that_stand_at_the_mark(
    path: Path, tmp_path: Path, open_sqlite: Open, follow: Callable[..., Follower]
) -> None:
    with closing(open_at(path)) as log:
        log.append(event("kept"))
    path.with_name(path.name + "-upkeep").unlink()
    log, other = open_sqlite(), open_sqlite()
    assert log.bounds() == other.bounds() and log.bounds().lost
    followers = [follow(each, each.bounds().latest) for each in (log, other)]
    positions = log.append(event("1")) + other.append(event("2"))
    for follower in followers:
        follower.wait_for(2)
        assert [record.position for record in follower.records] == positions


def test_ids_lie_above_the_mark_whatever_the_clock_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_at(path)) as log:
        (gone,) = log.append(event("gone"))
        log.trim()
    with closing(sqlite3.connect(path)) as database:  # an older copy
        database.execute("DELETE FROM events")
        database.commit()
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
    with closing(open_at(path)) as log:
        mark = log.bounds().lost
        assert mark > gone
        (new,) = log.append(event("new"))
        assert new > mark
        assert [len(batch) for batch in (next(iter(log.follow(mark, threading.Event()))),)] == [1]


OPEN_BY_NAME = """
import sys
from sse.log.sqlite.engine import SQLiteLog
print("ready")
for line in sys.stdin:
    print(SQLiteLog(line.rstrip(), retain_events=10, retain_seconds=10).bounds().lost)
"""


def test_workers_that_open_a_restored_log_at_once_mark_it_once(path: Path) -> None:
    children = [start(OPEN_BY_NAME, stdin=subprocess.PIPE, bufsize=1) for _ in range(4)]
    try:
        assert [child.stdout.readline() for child in children if child.stdout] == ["ready\n"] * 4
        for turn in range(10):
            log = path.with_name(f"{turn}.db")
            with closing(open_at(log)) as made:
                made.append(event("x"))
            log.with_name(f"{turn}.db-upkeep").unlink()
            for child in children:
                assert child.stdin is not None
                child.stdin.write(f"{log}\n")
            marks = {child.stdout.readline() for child in children if child.stdout}
            assert len(marks) == 1 and marks != {"0\n"}
    finally:
        for child in children:
            child.communicate(timeout=10)


def test_worker_that_opens_while_another_one_marks_waits_for_the_mark(path: Path) -> None:
    """The other one has made the line's file, and not yet written to it: empty, as an older version leaves it."""
    with closing(open_at(path)) as log:
        log.append(event("x"))
        latest = log.bounds().latest
    beside = path.with_name(path.name + "-upkeep")
    beside.write_bytes(b"")
    with ThreadPoolExecutor(1) as pool, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = pool.submit(open_at, path)
        time.sleep(0.1)  # it looks
        other.execute("INSERT INTO meta VALUES ('lost', ?)", (latest + 100,))
        place.note(str(path), place.identity(str(path)), latest + 100)
        other.execute("COMMIT")
        with closing(opening.result(10)) as log:
            assert log.bounds().lost == latest + 100


def test_worker_whose_file_was_replaced_does_not_vouch_for_the_new_one(path: Path, tmp_path: Path) -> None:
    with closing(open_at(path)) as old:
        old.append(event("kept"))
        vacuum_into(path, tmp_path / "backup.db")
        renamed(path, tmp_path / "backup.db")
        (gone,) = old.append(event("gone"))
        old.trim()
        with closing(open_at(path)) as new:
            assert new.bounds().lost > gone


def test_birth_tells_two_files_apart_that_have_one_number(path: Path) -> None:
    """On a fresh volume the first file always has the same."""
    with closing(open_at(path)) as log:
        (position,) = log.append(event("x"))
    born = subprocess.run(["stat", "-c", "%W", path], capture_output=True, text=True).stdout.strip()
    if born in ("", "-", "0", "?"):
        pytest.skip("this file system does not know when a file was born")
    inode, birth, latest = place.look(str(path)) or (0, 0, 0)
    assert (inode, birth) == place.identity(str(path)) and birth // 10**9 == int(born)
    place.note(str(path), (inode, birth - 1), latest)
    with closing(open_at(path)) as log:
        assert log.bounds().lost > position


def test_only_the_worker_that_has_the_duty_writes_the_line(path: Path, open_sqlite: Open) -> None:
    first, second = open_sqlite(), open_sqlite()
    first.trim()
    (position,) = second.append(event("x"))
    second.trim()
    assert (place.look(str(path)) or (0, 0, 0))[2] < position
    first.trim()
    assert (place.look(str(path)) or (0, 0, 0))[2] == position
    before = os.stat(f"{path}-upkeep").st_mtime_ns
    first.trim()
    assert os.stat(f"{path}-upkeep").st_mtime_ns == before, "written again with nothing new"


# ── a copy in the old journal mode ──────────────────────────────────────────────────────────────────────


def test_copy_by_vacuum_is_put_into_wal_mode_so_that_readers_do_not_lock_commits_out(path: Path, tmp_path: Path) -> None:
    with closing(open_at(path)) as log:
        log.append(event("x") * 100)
    vacuum_into(path, tmp_path / "copy.db")
    with closing(open_at(tmp_path / "copy.db")) as log, closing(sqlite3.connect(tmp_path / "copy.db")) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        reading = reader.execute("SELECT * FROM events")
        assert reading.fetchone()  # a read that is under way
        assert len(log.append(event("y"))) == 1


def test_commit_that_meets_a_lock_is_tried_again(open_sqlite: Open) -> None:
    log = open_sqlite()
    busy = 3

    class Writer:
        inner = log._writer

        def execute(self, statement: str, *values: object) -> object:
            nonlocal busy
            if statement == "COMMIT" and busy:
                busy -= 1
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY  # type: ignore[attr-defined]
                raise error
            return self.inner.execute(statement, *values)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    log._writer = Writer()  # type: ignore[assignment]
    assert len(log.append(event("x"))) == 1 and busy == 0
    assert len(log.read(None, 0, 10, 100)) == 1
