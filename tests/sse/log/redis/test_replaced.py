"""Redis forgets: it is flushed, exchanged or set back, and that is told rather than silent."""

from __future__ import annotations

import contextlib
import threading

import pytest

from sse.event import Event
from sse.log.base import LogReplaced
from sse.log.redis import RedisLog
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
        pytest.param(True, False, False, "ends at", id="an older copy"),
        pytest.param(True, True, True, "has lost", id="an older copy, and another worker wrote since"),
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
    assert append(log, "next") > max(position, log.bounds().trimmed)


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
