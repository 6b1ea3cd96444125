"""Redis forgets: it is flushed, exchanged or set back, and that is told rather than silent."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest

from sse.events.model import Event, format_id
from sse.log import LogUnavailable
from sse.log.base import LogReplaced
from sse.log.redis.engine import RedisLog
from sse.log.redis.url import parse_url
from tests.sse.log.redis.play import EVENTS, META, Open, Start, Tailer, append
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually


def test_flushed_redis_is_told_before_the_first_event_of_the_new_log(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log, other = open_redis(server), open_redis(server)
    tailer = Tailer(log, closing)
    last = append(log, "old")
    eventually(lambda: tailer.data() == ["old"])
    client = server.client()
    with contextlib.closing(client.pipeline()) as together:  # so that the follower sees both at once
        together.flushall()
        together.xadd(EVENTS, {"c": "a", "d": "new"}, id="9999999999999-0")
        together.execute()
    client.close()
    eventually(lambda: tailer.replaced, 1.5)
    assert log.bounds().latest > last
    append(other, "newer")
    eventually(lambda: tailer.story == ["old", "replaced", "new", "newer"])
    assert not tailer.failures


def test_quiet_redis_that_was_flushed_is_noticed_within_a_second(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    tailer = Tailer(log, closing)
    append(log, "old")
    eventually(lambda: tailer.records)
    server.run("FLUSHALL")
    eventually(lambda: tailer.replaced, 1.2)
    append(log, "new")
    eventually(lambda: tailer.data() == ["old", "new"])
    assert len(tailer.replaced) == 1


@pytest.mark.parametrize(
    ("saved", "followed", "overtaken", "message"),
    [
        pytest.param(False, True, False, "is another one", id="empty"),
        pytest.param(False, True, True, "is another one", id="empty, and another worker wrote since"),
        pytest.param(True, True, False, "has lost", id="an older copy of what was read"),
        pytest.param(True, False, False, "has lost", id="an older copy of what was stored"),
        pytest.param(True, True, True, "has lost", id="an older copy of what was read, and another worker wrote since"),
        pytest.param(True, False, True, "has lost", id="an older copy of what was stored, and another worker wrote since"),
    ],
)
def test_redis_that_came_back_with_less_is_told(
    start: Start,
    open_redis: Open,
    saved: bool,
    followed: bool,
    overtaken: bool,
    message: str,
) -> None:
    server = start(appendonly="no")
    log = open_redis(server)
    stop = threading.Event()
    first = append(log, "saved")
    if saved:
        server.run("SAVE")
    position = append(log, "forgotten")
    if followed:
        assert len(next(iter(log.follow(first, stop)))) == 1
    server.kill()
    server.start()
    if overtaken:
        assert append(open_redis(server), "newer") > position
    with pytest.raises(LogReplaced, match=message):
        next(iter(log.follow(position, stop)))
    bounds = log.bounds()
    assert (bounds.lost if saved else bounds.trimmed) > position
    assert bounds.complete is not saved, "an emptied one is a new log; a copy has lost what it was given"
    assert append(log, "next") > max(position, bounds.trimmed, bounds.lost)


def test_worker_that_has_only_read_what_is_lost_tells_of_it_too(start: Start, open_redis: Open) -> None:
    """Who had stored it is gone, and others have written since."""
    server = start(appendonly="no")
    writer, reader = open_redis(server), open_redis(server)
    first = append(writer, "saved")
    server.run("SAVE")
    position = append(writer, "forgotten")
    assert len(next(iter(reader.follow(first, threading.Event())))) == 1
    writer.close()
    server.kill()
    server.start()
    ignorant = open_redis(server)
    assert append(ignorant, "newer") > position and ignorant.bounds().lost == 0
    with pytest.raises(LogReplaced, match="has lost"):
        next(iter(reader.follow(position, threading.Event())))
    assert ignorant.bounds().lost > position


def test_loss_that_one_worker_knows_of_is_told_to_all_and_for_good(start: Start, open_redis: Open) -> None:
    server = start(appendonly="no")
    knowing, stop = open_redis(server), threading.Event()
    append(knowing, "saved")
    server.run("SAVE")
    append(knowing, "forgotten")
    server.kill()
    server.start()
    ignorant = open_redis(server)
    following = iter(ignorant.follow(0, stop))
    assert [record.data for record in next(following)] == ["saved"]
    between = append(ignorant, "between")
    assert [record.data for record in next(following)] == ["between"] and ignorant.bounds().lost == 0
    after = append(knowing, "after")
    with pytest.raises(LogReplaced, match="has lost"):
        next(following)
    for log in knowing, ignorant, open_redis(server):
        # Clients of the worker that knew nothing may have missed the gap without being told.
        assert between < log.bounds().lost < after
        assert [record.data for record in log.read(None, 0, 10, 1000)] == ["saved", "between", "after"]
    assert [len(batch) for batch in (next(iter(ignorant.follow(between, stop))),)] == [1]  # told once


@pytest.mark.parametrize("removal", ["trim", "delete", "none"])
def test_nothing_is_taken_for_lost_that_is_there_or_was_removed(
    start: Start, open_redis: Open, removal: str
) -> None:
    server = start(appendfsync="always")  # else what it answers while it syncs is gone with it
    log = open_redis(server, retain_events=1)
    position = append(log, "1")
    if removal == "trim":
        position = append(open_redis(server), "2")
        assert log.trim() == 1
    elif removal == "delete":
        server.run("XDEL", EVENTS, format_id(position))
    server.kill()
    server.start()
    eventually(lambda: refusals(log) == 0)
    assert log.bounds().lost == 0
    assert list(map(len, islice(log.follow(position, threading.Event()), 1))) == [0]


def refusals(log: RedisLog) -> int:
    try:
        log.bounds()
    except LogUnavailable:
        return 1
    return 0


def test_what_an_old_master_stores_after_another_was_found_is_not_acknowledged(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    old = start(repl_diskless_sync_delay=0)
    new = start(replicaof=f"127.0.0.1 {old.port}")
    log = open_redis(old)
    tailer = Tailer(log, closing)
    append(log, "1")
    eventually(lambda: new.run("XLEN", EVENTS) == 1, 10)
    new.run("REPLICAOF", "NO", "ONE")
    old.pause()
    pool = closing.enter_context(ThreadPoolExecutor(1))
    late = pool.submit(append, log, "late")
    log._client._connector.target = parse_url(new.url)  # as a Sentinel that names another master now
    append(log, "2")
    old.resume()
    with pytest.raises(LogUnavailable, match="another Redis has become the master"):
        late.result(5)
    assert old.run("XLEN", EVENTS) == 2
    eventually(lambda: tailer.data() == ["1", "2"], 3)  # and its follower, too, has left the old one
    assert not tailer.replaced and log.bounds().lost == 0


def test_log_that_goes_back_under_a_follower_is_told(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    following = iter(log.follow(0, threading.Event()))
    append(log, "1")
    before = server.run("HGET", META, "last")
    append(log, "2")
    eventually(lambda: next(following) == [])
    server.run("HSET", META, "last", before)  # an older copy was restored, without an end of connections
    with pytest.raises(LogReplaced, match="went back"):
        next(following)


def test_follower_that_trimming_has_overtaken_is_told(start: Start, closing: contextlib.ExitStack) -> None:
    server = start()
    log = RedisLog.from_url(server.url, retain_events=10, retain_seconds=86_400)
    closing.callback(log.close)
    stop = threading.Event()
    position = append(log, "first")
    following = iter(log.follow(position - 1, stop))
    assert len(next(following)) == 1
    for follower in following, log.follow(position, stop):  # one that goes on, and one that was cut off
        log.append([Event("a", "x" * 100_000)] * 30)
        assert log.trim() > 0
        with pytest.raises(LogReplaced, match="was trimmed through"):
            next(iter(follower))
    assert len(next(iter(log.follow(position, stop)))) == 10  # told once
