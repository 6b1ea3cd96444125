"""``headwater log check``: a sound log is said to be sound, also in use; each kind of damage is told in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sse.events.model import Event, make_position
from sse.log import Log
from tests.command.run import headwater
from tests.support.publisher import Publishers
from tests.support.redis_server import RedisServer
from tests.support.server import Server

Open = Callable[[str], Log]
New = Callable[[str], str]


def fill(log: Log) -> None:
    log.append([Event(f"c{n % 9}", f"data {n} ž") for n in range(1500)], close=["c7", "empty"])
    log.erase("c8")
    log.append([Event("c8", "again")])
    log.channels()  # which counts them


def check(url: str) -> tuple[int, list[str]]:
    """The status, and what was printed."""
    done = headwater("log", "check", SSE_LOG=url)
    return done.returncode, done.stdout.splitlines()


def test_a_sound_log_is_sound(url: str, opened: Open) -> None:
    fill(opened(url))
    status, (name, *found) = check(url)
    assert (status, found) == (0, ["sound"]) and "records in 10 channels" in name, name


def test_a_log_is_sound_while_it_is_used_trimmed_and_erased(url: str) -> None:
    limits = {"SSE_RETAIN_EVENTS": 500, "SSE_RETAIN": "a=50,b=1s"}
    with Server(SSE_LOG=url, WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0, **limits) as server:
        with Publishers(server.port, 3, channels=("a", "b", "c", "d")) as publishers:
            for n in range(3):
                publishers.wait_progress()
                headwater("log", "erase", "abcd"[n], "--yes", SSE_LOG=url)
                assert check(url)[0] == 0


def test_what_import_and_restore_have_made_is_sound(url: str, new: New, opened: Open, tmp_path: Path) -> None:
    there = new("sqlite")
    fill(opened(there))
    backup = str(tmp_path / "backup")
    assert headwater("log", "import", stdin=headwater("log", "export", SSE_LOG=there).stdout, SSE_LOG=url).returncode == 0
    assert check(url)[1][-1] == "sound"
    assert headwater("log", "backup", backup, SSE_LOG=url).returncode == 0
    assert headwater("log", "restore", backup, "--force", SSE_LOG=url).returncode == 0
    assert check(url)[1][-1] == "sound"


SQL = {
    "the channels' counts": ("UPDATE channels SET events = events + 1 WHERE channel = 'c1'", "wrong: c1 has 167 events of"),
    "a record that nobody counted": ("DELETE FROM events WHERE position = (SELECT min(position) FROM events)", "wrong: c0 has 166 events of"),
    "a mark": ("UPDATE meta SET value = value + (1 << 40) WHERE name = 'counted'", "wrong: the mark counted is "),
    "a mark that is missing": ("DELETE FROM meta WHERE name = 'coarse'", "wrong: marks are missing: coarse"),
    "a name": ("UPDATE events SET channel = 'a b' WHERE position = (SELECT min(position) FROM events)", "wrong: 'a b' is not the name of a channel"),
    "an end that is an event": ("UPDATE closed SET position = (SELECT min(position) FROM events WHERE channel = 'c1') WHERE channel = 'c7'; UPDATE events SET channel = 'c7' WHERE position = (SELECT min(position) FROM events WHERE channel = 'c1')", "wrong: c7 has 167 events of "),
    "keys of the future": (f"INSERT INTO publishes VALUES ('k', x'00', {make_position(1 << 42)}, 1, 0)", "wrong: 1 idempotency keys answer with ids beyond"),
    "an older program's trimming": ("UPDATE meta SET value = value + 1 WHERE name = 'removed'", "note: an older program has trimmed"),
}  # fmt: skip


@pytest.mark.parametrize("what", SQL)
def test_what_is_wrong_with_a_file_is_told(what: str, new: New, opened: Open) -> None:
    url = new("sqlite")
    log = opened(url)
    fill(log)
    log.close()
    statements, said = SQL[what]
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        database.executescript(statements)
    status, lines = check(url)
    assert any(line.startswith(said) for line in lines), lines
    assert status == (0 if said.startswith("note") else 1)


def test_damaged_pages_are_told(new: New, opened: Open) -> None:
    url = new("sqlite")
    log = opened(url)
    fill(log)
    log.close()
    file = Path(url.removeprefix("sqlite:///"))
    octets = bytearray(file.read_bytes())
    octets[3 * 4096 : 6 * 4096] = b"\x55" * (3 * 4096)
    file.write_bytes(octets)
    status, lines = check(url)
    assert status == 1 and any(line.startswith("wrong: SQLite: ") for line in lines), lines
    assert file.read_bytes() == bytes(octets), "it was left as it is"


def lose_from_index(redis: Any) -> None:
    redis.zrem("{headwater}:ch:c1", redis.zrange("{headwater}:ch:c1", 0, 0)[0])


def lose_entry(redis: Any) -> None:
    redis.xdel("{headwater}:events", redis.xrange("{headwater}:events", count=1)[0][0])


def change_count(redis: Any) -> None:
    redis.hset("{headwater}:sizes", "c2", "5 5 5")


def forget_closed(redis: Any) -> None:
    redis.hset("{headwater}:meta", "closed", 0)


def foreign_entry(redis: Any) -> None:
    redis.xadd("{headwater}:events", {"mine": "x"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_from_index, "wrong: the index of c1 lacks "),
        (lose_entry, "wrong: the index of c0 has 1 ids without an event"),
        (change_count, "wrong: c2 has 167 events of"),
        (forget_closed, "wrong: 2 channels are closed, but publishers are not told so"),
        (foreign_entry, "note: 1 entries of the stream are not of this service"),
    ],
)
def test_what_is_wrong_in_redis_is_told(damage: Callable[[Any], None], said: str, new: New, opened: Open, redis: RedisServer) -> None:
    url = new("redis")
    fill(opened(url))
    with closing(redis.client(db=int(url.rpartition("/")[2]))) as client:
        damage(client)
    status, lines = check(url)
    assert any(line.startswith(said) for line in lines), lines
    assert status == (0 if said.startswith("note") else 1)


def test_where_there_is_no_log_that_is_told(tmp_path: Path) -> None:
    done = headwater("log", "check", SSE_LOG=f"sqlite:///{tmp_path}/h.db")
    assert (done.returncode, done.stderr) == (1, f"headwater: there is no log at {tmp_path}/h.db\n")
    assert list(tmp_path.iterdir()) == []
