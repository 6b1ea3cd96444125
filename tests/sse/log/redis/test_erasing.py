"""Erasing: no byte is left in Redis, whoever else is at work, and whoever ends in the middle of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sse.events.model import Event, format_id
from sse.log import LogUnavailable, RetainRule
from sse.log.redis import erase as erasing
from sse.log.redis.engine import RedisLog
from sse.log.redis.erase import Eraser
from sse.log.redis.link import Link
from sse.log.redis.scripts import REBUILD
from sse.log.redis.url import parse_url
from tests.sse.log.conftest import Follower, data, trim_all
from tests.sse.log.redis.play import EVENTS, META, Open, Start, Tailer, indexed, positions
from tests.sse.log.redis.test_failover import is_master, replicate
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

COPY = "{headwater}:copy"
STATE = "{headwater}:rebuild"
SECRET = "alice@example.com"

Follow = Callable[..., Follower]


def neighbours(log: RedisLog, count: int = 100) -> list[int]:
    """Events of one person among others', so that every node of the stream holds both."""
    return log.append([Event("person", f"{SECRET} {n}") if n % 3 == 1 else Event("other", str(n)) for n in range(count)])


def secrets(server: RedisServer) -> int:
    """How often the person is in the stream's nodes. (``rdbcompression no``: so that the text can be found.)"""
    return int(server.run("DUMP", EVENTS).count(SECRET.encode()))


def unfinished(log: RedisLog, monkeypatch: pytest.MonkeyPatch, bites: int = 0) -> int:
    """Erase the person with a worker that dies after so many bites; return the marker's position."""
    with monkeypatch.context() as patch:
        patch.setattr(Eraser, "_finish", lambda self, through, deadline: [self._bite() for _ in range(bites)])
        return log.erase("person").through


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuild in many bites."""
    monkeypatch.setattr(erasing, "BITE_RECORDS", 15)


# ── the bytes ───────────────────────────────────────────────────────────────────────────────────────────


def test_no_byte_is_left_in_memory_nor_in_the_files_once_they_are_rewritten(start: Start, open_redis: Open) -> None:
    server = start(rdbcompression="no", auto_aof_rewrite_percentage=0)
    log = open_redis(server)
    neighbours(log, 1000)
    log.append([Event("person", SECRET)], key="k", digest=b"1", close=["person"])
    assert secrets(server) == 334
    log.erase("person")
    assert secrets(server) == 0
    server.run("BGREWRITEAOF")
    eventually(lambda: server.run("INFO", "persistence")["aof_rewrite_in_progress"] == 0, 10)
    server.run("SAVE")
    files = [path for path in server.directory.rglob("*") if path.is_file()]
    assert {"dump.rdb"} < {path.name for path in files}
    assert not [path.name for path in files if SECRET.encode() in path.read_bytes()]
    for key in server.run("KEYS", "*"):
        assert SECRET.encode() not in server.run("DUMP", key)


def test_deleting_entries_alone_would_leave_their_bytes(start: Start, open_redis: Open) -> None:
    """Why the stream is rebuilt."""
    server = start(rdbcompression="no")
    log = open_redis(server)
    found = neighbours(log)
    server.run("XDEL", EVENTS, *map(format_id, found[1::3]))
    assert data(log.read(["person"], 0, 100, 1000)) == [] and secrets(server) == 33


@pytest.mark.usefixtures("no_grace")
def test_bytes_of_records_that_were_trimmed_before_go_too(start: Start, open_redis: Open) -> None:
    server = start(rdbcompression="no")
    log = open_redis(server)
    neighbours(log)
    log.retain(100, 1000, [RetainRule("person", 0, None)])
    eventually(lambda: trim_all(log) or not indexed(server, "person"))
    assert positions(log, "person") == [] and secrets(server) == 33
    log.erase("person")
    assert secrets(server) == 0


def test_other_entries_are_kept_to_the_letter(start: Start, open_redis: Open) -> None:
    server = start()
    log = open_redis(server)
    log.append([Event("a", "\0é\n" * 50, "kind", 5), Event("person", SECRET), Event("b", "", None, 0)])
    log.append([Event("a", "traced")], trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    server.run("XADD", EVENTS, f"{time.time_ns() // 10**6 + 10**7}-5", "foreign", "entry")
    before = [entry for entry in server.run("XRANGE", EVENTS, "-", "+") if b"person" not in entry[1].values()]
    marker = format_id(log.erase("person").through).encode()
    after = server.run("XRANGE", EVENTS, "-", "+")
    assert after[:-1] == before and after[-1][0] == marker
    info = server.run("XINFO", "STREAM", EVENTS)
    assert info[info.index(b"last-generated-id") + 1] == marker


# ── what others see meanwhile ───────────────────────────────────────────────────────────────────────────


def test_what_is_erased_is_gone_for_all_readers_before_its_bytes_are(
    start: Start, open_redis: Open, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(rdbcompression="no")
    log, other = open_redis(server), open_redis(server)
    found = neighbours(log)
    kept = [position for n, position in enumerate(found) if n % 3 != 1]
    through = unfinished(log, monkeypatch)
    assert secrets(server) == 33
    left = [*kept, through]
    assert positions(other) == left and positions(other, "person") == [through]
    assert [record.position for record in other.newest(None, 10**6, 10**9)] == left
    assert other.floor(None, 0, len(left) - 1) == left[0] and other.floor(None, 0, len(left)) is None
    monkeypatch.setattr("sse.log.redis.channels.MERGED_MOST", 0)  # so that patterns read the stream itself
    assert positions(other, "p*") == [through] and positions(other, "*") == left
    follower = follow(other)
    follower.wait_for(len(left))
    assert [record.position for record in follower.records] == left
    assert other.channels("person") == []


def test_followers_do_not_notice_that_the_stream_is_another_key(
    start: Start, open_redis: Open, closing: contextlib.ExitStack, small: None
) -> None:
    server = start()
    log, other = open_redis(server), open_redis(server)
    neighbours(log)
    tailer = Tailer(other, closing)
    eventually(lambda: len(tailer.records) == 100)
    stop, published = threading.Event(), 0

    def publish() -> None:
        nonlocal published
        while not stop.is_set():
            log.append([Event("other", "x"), Event("person", SECRET)])
            published += 1
            time.sleep(0.002)

    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(publish)
        erased = [other.erase("person") for _ in range(3)]
        stop.set()
        publishing.result(10)
    last = log.append([Event("other", "last")])
    eventually(lambda: tailer.records[-1].position == last[0])
    followed = [record.position for record in tailer.records]
    assert not tailer.failures and not tailer.replaced
    assert followed == sorted(set(followed))
    assert {one.through for one in erased} <= set(followed)
    assert positions(log) == [p for p in followed if p in set(positions(log))], "a follower has all that is left"
    assert sum(one.events for one in erased) + len(positions(log, "person")) - 1 == 33 + published


def test_two_erasures_at_once_are_both_complete(start: Start, open_redis: Open, small: None) -> None:
    server = start(rdbcompression="no")
    logs = [open_redis(server) for _ in range(4)]
    neighbours(logs[0], 300)
    with ThreadPoolExecutor(4) as pool:
        erased = list(pool.map(lambda n: logs[n].erase(("person", "other")[n % 2]), range(4)))
    assert sum(one.events for one in erased) == 300
    newest = {max(erased[0].through, erased[2].through), max(erased[1].through, erased[3].through)}
    assert set(positions(logs[0])) == newest and secrets(server) == 0
    assert not server.run("EXISTS", COPY, STATE)


def test_what_is_trimmed_meanwhile_does_not_come_back(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    server = start()
    log, other = open_redis(server), open_redis(server, retain_events=20)
    neighbours(log)
    unfinished(log, monkeypatch, bites=3)
    assert server.run("XLEN", COPY)
    trim_all(other)
    left = positions(other)
    assert len(left) == 20
    log.erase("person")
    assert positions(log)[:-1] == left[:-1]


def test_rebuild_does_not_begin_again_because_of_what_is_trimmed_meanwhile(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch, small: None, no_grace: None
) -> None:
    """Or it would never end where something is trimmed each second."""
    server = start()
    log, other = open_redis(server), open_redis(server, retain_events=70)
    neighbours(log, 300)
    log.append([Event("cursor", str(n)) for n in range(100)])
    through = unfinished(log, monkeypatch, bites=25)
    copied = server.run("INFO", "commandstats")["cmdstat_xadd"]["calls"]
    other.retain(70, 1000, [RetainRule("cursor", 10, None)])
    eventually(lambda: trim_all(other) == 0 and len(positions(log, "cursor")) == 10)
    log.append([Event("other", "x")] * 2)
    old = positions(log)[1]
    server.run("XTRIM", EVENTS, "MINID", "=", format_id(old))  # an older program's
    left = positions(log)
    log._eraser._finish(through, time.monotonic() + 20)
    assert positions(log) == left and not server.run("EXISTS", COPY)
    assert server.run("INFO", "commandstats")["cmdstat_xadd"]["calls"] - copied < 50


@pytest.mark.parametrize(
    ("command", "left"),
    [
        pytest.param(("XTRIM", EVENTS, "MAXLEN", 10), 6, id="from the front"),
        pytest.param(("XDEL", EVENTS, 3, 5), 65, id="from the middle"),
        pytest.param(("DEL", EVENTS), 0, id="all of it"),
    ],
)
def test_what_somebody_else_trims_meanwhile_does_not_come_back(
    start: Start,
    open_redis: Open,
    monkeypatch: pytest.MonkeyPatch,
    small: None,
    command: tuple[str | int, ...],
    left: int,
) -> None:
    """As a program from before this copy would do it: without a look at the copy."""
    server = start()
    log = open_redis(server)
    found = neighbours(log)
    unfinished(log, monkeypatch, bites=3)
    ids = [format_id(found[part]) if isinstance(part, int) and command[0] == "XDEL" else part for part in command]
    server.run(*ids)
    before = [position for position in positions(log) if position <= found[-1]]
    assert len(before) == left
    log.erase("person")
    assert [position for position in positions(log) if position <= found[-1]] == before
    assert not server.run("EXISTS", COPY, STATE)


def test_worker_that_knows_an_erased_event_does_not_take_it_for_lost(start: Start, open_redis: Open) -> None:
    server = start()
    log, other = open_redis(server), open_redis(server)
    log.append([Event("person", SECRET)])
    log._client._pool.clear()
    other.erase("person")
    other.erase("person")
    log.append([Event("person", "new")])
    assert log.bounds().lost == 0


# ── whoever ends in the middle of it ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bites", [0, 5])
def test_another_worker_ends_what_a_dead_one_began(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch, small: None, bites: int
) -> None:
    server = start(rdbcompression="no")
    log, other = open_redis(server), open_redis(server)
    found = neighbours(log)
    through = unfinished(log, monkeypatch, bites)
    log.close()
    if bites:
        assert other.trim() == 0 and secrets(server), "it was at work a moment ago"
        server.run("HSET", STATE, "at", 0)
    other.trim()
    assert secrets(server) == 0 and not server.run("EXISTS", COPY, STATE)
    assert positions(other) == [*(p for n, p in enumerate(found) if n % 3 != 1), through]


def test_failover_in_the_middle_of_it_loses_nothing(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    old = start(repl_diskless_sync_delay=0)
    new = replicate(start, old)
    new.run("CONFIG", "SET", "rdbcompression", "no")
    log = open_redis(old)
    found = neighbours(log, 300)
    bite, bites = Eraser._bite, 0

    def fail_over(self: Eraser) -> tuple[bytes, int]:
        nonlocal bites
        bites += 1
        if bites == 10:
            old.run("SET", "x", "y")  # so that there is something to wait for
            eventually(lambda: new.run("GET", "x"))
            old.kill()
            new.run("REPLICAOF", "NO", "ONE")
            eventually(lambda: is_master(new))
            log._client._connector.target = parse_url(new.url)
        return bite(self)

    monkeypatch.setattr(Eraser, "_bite", fail_over)
    erased = log.erase("person")
    assert erased.events == 100 and bites > 10
    assert positions(log) == [*(p for n, p in enumerate(found) if n % 3 != 1), erased.through]
    assert secrets(new) == 0 and not new.run("EXISTS", COPY, STATE)
    assert log.bounds().lost == 0


def test_erasure_that_a_failover_lost_is_told(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    """Without ?replicas= the new master may not know of it: that must not look as if it had been done."""
    server = start()
    log = open_redis(server)
    neighbours(log)
    through = unfinished(log, monkeypatch, bites=2)
    server.run("HDEL", META, "erase", "erasing")
    server.run("DEL", STATE, COPY, "{headwater}:erased")
    with pytest.raises(LogUnavailable, match="has lost the erasure itself: erase the channel again"):
        log._eraser._finish(through, time.monotonic() + 5)


def test_redis_without_room_for_a_second_stream_says_so_and_ends_it_later(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(rdbcompression="no")
    log = open_redis(server)
    neighbours(log, 300)
    log.append([Event("other", "x" * 100)] * 3000)
    server.run("CONFIG", "SET", "maxmemory", int(server.run("INFO", "memory")["used_memory"]) + 200_000)
    with pytest.raises(LogUnavailable, match="the records are gone, but .* no room for a second stream"):
        log.erase("person")
    assert len(log.read(["person"], 0, 10, 1000)) == 1 and secrets(server)
    assert log.trim() == 0
    server.run("CONFIG", "SET", "maxmemory", 0)
    assert log.trim() == 0 and secrets(server), "not tried again at once"
    log._upkeep._rebuild_at = 0.0
    log.trim()
    assert secrets(server) == 0


def test_rebuild_that_fills_redis_gives_its_memory_back(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    log = open_redis(server)
    neighbours(log, 3000)
    monkeypatch.setattr(Eraser, "_check_room", lambda self: None)
    run, bites = Link.run, 0

    def fill(link: Link, script: object, *args: object) -> object:
        nonlocal bites
        bites += script is REBUILD
        if bites == 3 and script is REBUILD:
            server.run("CONFIG", "SET", "maxmemory", 1000)
        return run(link, script, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Link, "run", fill)
    with pytest.raises(LogUnavailable, match="Redis is full"):
        log.erase("person")
    assert not server.run("EXISTS", COPY, STATE)
    server.run("CONFIG", "SET", "maxmemory", 0)
    assert log.erase("person").events == 0 and len(positions(log)) == 2001


def test_no_bite_keeps_redis_for_long(start: Start, open_redis: Open) -> None:
    """What counts is how much one script does, however large the log or its events are."""
    server = start()
    log = open_redis(server)
    neighbours(log, 5000)
    log.append([Event("large", "x" * 65536)] * 40)
    server.run("CONFIG", "RESETSTAT")
    log.erase("person")
    calls = {name: stat["calls"] for name, stat in server.run("INFO", "commandstats").items()}
    assert calls["cmdstat_evalsha"] > 5040 / erasing.BITE_RECORDS + 40 * 65536 / erasing.BITE_BYTES
    assert calls["cmdstat_xadd"] == 5040 - 1667 + 2  # each record once, and the marker twice
