"""An append that failed: was it stored? "no" only where that is certain; after "unknown" the key makes a repetition safe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sse.log import LogUnavailable
from sse.log.redis.engine import RedisLog
from sse.log.redis.url import parse_url
from tests.sse.log.redis.play import EVENTS, META, Open, Start, append
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually


def stored(log: RedisLog, data: str = "x", **options: Any) -> str:
    """What is known after an append that fails."""
    with pytest.raises(LogUnavailable) as failure:
        append(log, data, **options)
    return failure.value.stored


def test_missing_replica_leaves_it_unknown_and_a_repetition_with_the_key_stores_nothing_more(
    start: Start, open_redis: Open
) -> None:
    server = start()
    log = open_redis(f"{server.url}?replicas=1")
    assert [stored(log, key="k", digest=b"1") for _ in range(3)] == ["unknown"] * 3
    assert server.run("XLEN", EVENTS) == 1, "stored each time"


def test_answer_that_does_not_come_leaves_it_unknown(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    append(log, "1")
    server.pause()
    pool = closing.enter_context(ThreadPoolExecutor(1))
    asked = pool.submit(stored, log, "2", key="k", digest=b"1")
    assert asked.result(5) == "unknown"
    assert stored(log) == "no", "refused unasked while Redis is known to be down"
    server.resume()


def test_connection_that_breaks_before_the_answer_leaves_it_unknown(start: Start, open_redis: Open) -> None:
    server = start()
    log = open_redis(server)
    append(log, "1")
    server.pause()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stored, log)
        eventually(server.unread, message="the append was not sent")
        server.process.kill()  # without waking it first, so that it answers nothing
        assert asked.result(5) == "unknown"
    assert stored(log) == "no", "nobody was there to be asked"


def test_master_that_changed_meanwhile_leaves_it_unknown(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    old, new = start(), start()
    log = open_redis(old)
    append(log, "1")
    old.pause()
    pool = closing.enter_context(ThreadPoolExecutor(1))
    late = pool.submit(stored, log, "late")
    eventually(lambda: not log._client._pool._shelf().links)
    log._client._connector.target = parse_url(new.url)
    append(log, "2")
    old.resume()
    assert late.result(5) == "unknown"
    assert old.run("XLEN", EVENTS) == 2, "it was stored, by one who is not the master any more"


@pytest.mark.parametrize(
    "obstacle",
    [
        pytest.param(lambda s: s.run("CONFIG", "SET", "maxmemory", "1kb"), id="full"),
        pytest.param(lambda s: s.run("REPLICAOF", "127.0.0.1", 1), id="a replica now"),
        pytest.param(lambda s: s.run("CONFIG", "SET", "min-replicas-to-write", 1), id="too few replicas"),
        pytest.param(lambda s: s.run("SET", "{headwater}:ch:a", "x"), id="a foreign key in the way"),
        pytest.param(lambda s: s.run("HSET", META, "format", "2"), id="another format"),
    ],
)
def test_what_redis_refuses_before_the_first_write_is_not_stored(
    start: Start, open_redis: Open, obstacle: Callable[[RedisServer], object]
) -> None:
    server = start()
    log = open_redis(server)
    append(log, "1")
    obstacle(server)
    assert stored(log) == "no"
    assert server.run("XLEN", EVENTS) == 1


def test_error_that_says_nothing_of_the_writes_leaves_it_unknown(server: RedisServer, open_redis: Open) -> None:
    rights = "+@all"
    server.run("ACL", "SETUSER", "half", "reset", "on", ">s3cret", "~*", rights)
    log = open_redis(f"redis://half:s3cret@127.0.0.1:{server.port}/0")
    append(log, "1")
    server.run("ACL", "SETUSER", "half", "-set")  # what the script does last: the event is in by then
    assert stored(log, "2", key="k", digest=b"1") == "unknown"
    assert server.run("XLEN", EVENTS) == 2


def test_what_redis_came_to_too_late_is_not_stored(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    append(log, "1")
    log._appender.learn_clock = lambda _: None  # type: ignore[method-assign]
    log._appender.offset_ms = time.time() * 1000 - time.monotonic() * 1000 - 60_000
    assert stored(log) == "no"
    assert server.run("XLEN", EVENTS) == 1


def test_what_came_too_late_and_could_not_be_asked_again_is_not_stored(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    log = open_redis(server)
    append(log, "1")
    log._appender.offset_ms = time.time() * 1000 - time.monotonic() * 1000 - 60_000
    learn = log._appender.learn_clock

    def lose_redis(redis_ms: int) -> None:
        learn(redis_ms)
        server.kill()

    monkeypatch.setattr(log._appender, "learn_clock", lose_redis)
    assert stored(log) == "no"


def test_repetition_is_a_write_so_that_replicas_are_waited_for(server: RedisServer, open_redis: Open) -> None:
    """Valkey's WAIT returns at once for a connection that has written nothing."""
    log = open_redis(server)
    position = append(log, "1", key="k", digest=b"1")
    (key,) = server.run("KEYS", "*:key:*")
    server.run("PEXPIRE", key, 60_000)
    assert append(log, "1", key="k", digest=b"1") == position
    assert server.run("PTTL", key) > 600_000


def test_closed_log_stores_nothing(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log.close()
    assert stored(log) == "no"


def test_figures_that_the_loop_and_threads_share_only_rise(server: RedisServer, open_redis: Open) -> None:
    """A thread that came late with a smaller one set them back, and ids after a failover could begin below them."""
    client = open_redis(server)._client

    now = client.seen
    client.holds(now + 10)
    client.knows(now + 20)
    client.holds(now + 15)
    client.knows(now + 1)
    assert (client.held, client.seen) == (now + 15, now + 20)
    with ThreadPoolExecutor(2) as pool:
        with client._rising:
            raising = [pool.submit(client.holds, now + 30), pool.submit(client.knows, now + 40)]
            time.sleep(0.05)
            assert (client.held, client.seen) == (now + 15, now + 20), "looked at and set without the lock"
        for each in raising:
            each.result(5)
    assert (client.held, client.seen) == (now + 30, now + 40)
