"""Which files a log opens, and that it leaves all others as they are."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sse.events.model import Event
from sse.log import LogRefused, LogUnavailable
from sse.log.sqlite import file as sqlite_file
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.children import run, start

OpenSQLite = Callable[..., SQLiteLog]


def make_log(path: Path, events: int = 2000) -> None:
    log = SQLiteLog(str(path), retain_events=10, retain_seconds=10)
    for _ in range(events // 100):
        log.append([Event("a", "x" * 100)] * 100, key=f"{time.monotonic_ns()}")
    log.close()


def make_foreign(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


def empty_meta(path: Path) -> None:
    make_foreign(path, "DELETE FROM meta", "PRAGMA wal_checkpoint(TRUNCATE)")


def drop_table(path: Path) -> None:
    make_foreign(path, "DROP TABLE publishes", "PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda p: p.write_bytes(b"hello\n"), "not a database", id="a short text"),
        pytest.param(lambda p: p.write_bytes(b"hello\n" * 5000), "not a database", id="a long text"),
        pytest.param(lambda p: p.write_bytes(bytes(8192)), "not a database", id="zeros"),
        pytest.param(lambda p: p.write_bytes(os.urandom(8192)), "not a database", id="noise"),
        pytest.param(lambda p: truncate(p, 100), "not a database|malformed", id="cut within the header"),
        pytest.param(lambda p: truncate(p, 4096), "malformed", id="cut after the first page"),
        pytest.param(lambda p: truncate(p, 100_000), "malformed", id="cut in the middle"),
        pytest.param(lambda p: overwrite(p, 0, bytes(16)), "not a database", id="no magic"),
        pytest.param(lambda p: overwrite(p, 4096 * 20, os.urandom(4096)), "damaged", id="noise in a page"),
        pytest.param(lambda p: overwrite(p, 4096 * 1, bytes(4096)), "damaged", id="a zeroed table root"),
        pytest.param(lambda p: overwrite(p, 60, b"\0\0\0\2"), "format 2.*format 1", id="a newer version"),
        pytest.param(lambda p: overwrite(p, 60, b"\0\0\0\0"), "format 0.*format 1", id="an older version"),
        pytest.param(lambda p: overwrite(p, 68, b"\0\0\0\7"), "another program's", id="another application"),
        pytest.param(empty_meta, "trim mark", id="no trim mark"),
        pytest.param(drop_table, "no such table", id="a table is missing"),
    ],
)
def test_file_that_is_damaged_or_not_ours_is_refused_and_untouched(
    path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    make_log(path)
    spoil(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(LogRefused, match=f"(?s){message}") as refusal:
        SQLiteLog(str(path), retain_events=10, retain_seconds=10)
    assert str(path) in str(refusal.value) and "it was left as it is" in str(refusal.value)
    assert hashlib.sha256(path.read_bytes()).digest() == before


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(["CREATE TABLE t (x)"], id="a table"),
        pytest.param(["PRAGMA journal_mode = WAL", "CREATE TABLE t (x)"], id="a table, in WAL mode"),
        pytest.param(["PRAGMA application_id = 5", "PRAGMA user_version = 1"], id="an application id"),
        pytest.param(["PRAGMA user_version = 1"], id="a version only"),
    ],
)
def test_database_of_another_program_is_refused_and_untouched(path: Path, statements: list[str]) -> None:
    make_foreign(path, *statements)
    before = path.read_bytes()
    with pytest.raises(LogRefused, match="another program's SQLite database"):
        SQLiteLog(str(path), retain_events=10, retain_seconds=10)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


ABANDON = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(
            ["PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"],
            id="in its write-ahead log",
        ),
        pytest.param(
            [
                "CREATE TABLE t (x)",
                "PRAGMA cache_size = 1",
                "BEGIN",
                "INSERT INTO t SELECT zeroblob(3000) FROM (WITH RECURSIVE c(n) AS"
                " (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 50) SELECT n FROM c)",
            ],
            id="in its rollback journal",
        ),
    ],
)
def test_what_a_killed_program_left_unfinished_stays_its_own(path: Path, statements: list[str]) -> None:
    with start(ABANDON, path, *statements) as child:
        child.wait(10)
    before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}
    assert len(before) > 1
    with pytest.raises(LogRefused):
        SQLiteLog(str(path), retain_events=10, retain_seconds=10)
    after = {name: (path.parent / name).read_bytes() for name in before}
    before.pop(f"{path.name}-shm", None), after.pop(f"{path.name}-shm", None)  # an index that is rebuilt
    assert after == before


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_no_file_is_refused(path: Path, kind: str) -> None:
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(LogRefused, match="not a regular file"):
        SQLiteLog(str(path), retain_events=10, retain_seconds=10)


def test_place_that_cannot_be_is_unavailable(path: Path) -> None:
    path.write_text("a file where a directory should be")
    with pytest.raises(LogUnavailable, match="log.db/log.db"):
        SQLiteLog(str(path / "log.db"), retain_events=10, retain_seconds=10)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda p: None, id="nothing"),
        pytest.param(lambda p: p.write_bytes(b""), id="an empty file"),
        pytest.param(lambda p: make_foreign(p, "VACUUM"), id="an empty database"),
        pytest.param(lambda p: make_foreign(p, "PRAGMA journal_mode = WAL"), id="a creation cut short"),
    ],
)
def test_what_holds_nothing_becomes_a_log(
    path: Path, open_sqlite: OpenSQLite, prepare: Callable[[Path], object]
) -> None:
    prepare(path)
    assert len(open_sqlite().append([Event("a", "x")])) == 1
    assert len(open_sqlite().read(None, 0, 10, 10)) == 1


def test_log_that_was_killed_opens_with_all_that_it_held(path: Path, open_sqlite: OpenSQLite) -> None:
    program = """
import os, sys
from sse.events.model import Event
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10, retain_seconds=10)
log.append([Event("a", "x")] * 100)
os.kill(os.getpid(), 9)
"""
    with start(program, path) as child:
        child.wait(10)
    assert child.returncode == -9 and path.with_name("log.db-wal").stat().st_size > 0
    assert len(open_sqlite().read(None, 0, 1000, 1000)) == 100


OPEN_BY_NAME = """
import sys
from sse.events.model import Event
from sse.log.sqlite.engine import SQLiteLog
print("ready")
for line in sys.stdin:
    log = SQLiteLog(line.rstrip(), retain_events=10, retain_seconds=10)
    print(*log.append([Event("a", "x")]), log.bounds().trimmed)
"""


def test_many_workers_that_start_at_once_make_one_log(path: Path) -> None:
    children = [start(OPEN_BY_NAME, stdin=subprocess.PIPE, bufsize=1) for _ in range(4)]
    try:
        assert [child.stdout.readline() for child in children if child.stdout] == ["ready\n"] * 4
        for turn in range(25):
            for child in children:
                assert child.stdin is not None
                child.stdin.write(f"{path}-{turn}\n")
            answers = [child.stdout.readline().split() for child in children if child.stdout]
            assert len({position for position, _ in answers}) == 4
            assert len({trimmed for _, trimmed in answers}) == 1
    finally:
        for child in children:
            child.communicate(timeout=10)


def test_large_file_is_opened_without_reading_all_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_log(path)
    overwrite(path, 4096 * 20, os.urandom(4096))
    monkeypatch.setattr(sqlite_file, "CHECK_BYTES", 100_000)
    log = SQLiteLog(str(path), retain_events=10, retain_seconds=10)
    try:
        assert len(log.newest(None, 1, 100)) == 1
        with pytest.raises(LogUnavailable, match="malformed"):  # found when it is met
            log.read(None, 0, 10_000, 1 << 30)
    finally:
        log.close()


READ_ONLY = """
import ctypes, os, sys
from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.sqlite.engine import SQLiteLog
os.setgid(65534); os.setuid(65534)
try:
    SQLiteLog(sys.argv[1], retain_events=10, retain_seconds=10)
except LogUnavailable as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without rights to the directory")
def test_file_without_the_right_to_write_is_unavailable_and_untouched(path: Path) -> None:
    make_log(path)
    before = path.read_bytes()
    for directory in (path.parent, *path.parent.parents):
        if directory.stat().st_uid == 0 and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    (message,) = run(READ_ONLY, path)
    assert str(path) in message
    assert path.read_bytes() == before
