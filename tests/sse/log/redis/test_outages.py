"""Redis does not answer, or dies: who waits for how long, and that nothing is lost or repeated."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sse.log import LogRefused, LogUnavailable
from sse.log.redis.link import Link
from tests.sse.log.children import run
from tests.sse.log.redis.play import KNOWN_DOWN, META, Open, Start, Tailer, append, failure, refused, until_it_works
from tests.support.wait import eventually

# --- Redis does not answer --------------------------------------------------------------------------------------


def test_frozen_redis_costs_one_time_out_and_nothing_is_stored_late(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    tailer = Tailer(log, closing)
    append(log, "before")
    server.pause()
    frozen = time.monotonic()
    assert refused(log, "lost") < 2.4
    waits = []
    while time.monotonic() < frozen + 3:
        waits.append(refused(log, "refused"))
        time.sleep(0.02)
    assert max(waits) < KNOWN_DOWN and len(waits) > 5
    eventually(lambda: tailer.failures, 0.1, "the follower did not notice a dead peer")
    server.resume()
    resumed = time.monotonic()
    until_it_works(log, "after", 2.0)
    eventually(lambda: "after" in tailer.data(), 2.0)
    assert time.monotonic() - resumed < 2.0
    assert [record.data for record in log.read(["a"], 0, 10, 1000)] == tailer.data() == ["before", "after"]


def test_publishers_that_wait_for_a_connection_do_not_wait_twice(start: Start, open_redis: Open) -> None:
    server = start()
    log = open_redis(server)
    server.pause()
    with ThreadPoolExecutor(40) as pool:
        assert max(pool.map(lambda _: refused(log), range(40))) < 2.6
    assert refused(log) < KNOWN_DOWN


def test_follower_that_finds_redis_dead_spares_publishers_the_wait(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    tailer = Tailer(log, closing)
    server.pause()
    eventually(lambda: tailer.failures, 2.5)
    assert refused(log) < KNOWN_DOWN
    time.sleep(0.3)  # meanwhile the follower connects again, as the kernel lets it: that is no sign of life
    assert refused(log) < KNOWN_DOWN


GEVENT = """
from gevent import monkey; monkey.patch_all()
import os, signal, sys, time
import gevent
from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.redis.engine import RedisLog

log = RedisLog.from_url(sys.argv[1], retain_events=100, retain_seconds=1000)
late = 0.0
def tick():
    global late
    while True:
        before = time.monotonic()
        time.sleep(0.005)
        late = max(late, time.monotonic() - before)
gevent.spawn(tick)
def publish(n):
    started = time.monotonic()
    try:
        log.append([Event("a", "x")])
    except LogUnavailable:
        return time.monotonic() - started
def publish_all():
    publishers = [gevent.spawn(publish, n) for n in range(50)]
    gevent.joinall(publishers, raise_error=True, timeout=10)
    return [publisher.get(block=False) for publisher in publishers]
assert publish_all() == [None] * 50
redis = int(sys.argv[2])
os.kill(redis, signal.SIGSTOP)
first, second = max(publish_all()), max(publish_all())
victim = gevent.spawn(publish, 0)
os.kill(redis, signal.SIGCONT)
deadline = time.monotonic() + 3
while publish(0) is not None and time.monotonic() < deadline:
    time.sleep(0.05)
assert gevent.get_hub().threadpool.apply(log.bounds).oldest
assert publish_all() == [None] * 50
print(first, second, late)
"""


def test_frozen_redis_holds_up_no_event_loop(start: Start) -> None:
    server = start()
    first, second, late = map(float, run(GEVENT, server.url, server.process.pid)[0].split())
    assert first < 2.6 and second < KNOWN_DOWN and late < 0.3


def test_log_closes_at_once_while_redis_is_frozen(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    tailer = Tailer(log, closing)
    server.pause()
    started = time.monotonic()
    tailer.stop()
    log.close()
    assert time.monotonic() - started < 0.5


# --- Redis dies -------------------------------------------------------------------------------------------------


def test_nothing_acknowledged_is_lost_or_repeated_when_redis_is_killed(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start(appendfsync="always")  # else what it answers while it syncs is gone with it
    log = open_redis(server)
    tailer = Tailer(open_redis(server), closing)
    acknowledged: list[str] = []
    longest = 0.0
    done = threading.Event()

    def publish() -> None:
        nonlocal longest
        n = 0
        while not done.is_set():
            n += 1
            started = time.monotonic()
            with contextlib.suppress(LogUnavailable):
                append(log, str(n))
                acknowledged.append(str(n))
            longest = max(longest, time.monotonic() - started)
            time.sleep(0.001)

    publisher = threading.Thread(target=publish)
    publisher.start()
    for _ in range(3):
        count = len(acknowledged)
        eventually(lambda count=count: len(acknowledged) > count + 20, 10)  # type: ignore[misc]
        server.kill()
        time.sleep(0.3)
        server.start()
        back, count = time.monotonic(), len(tailer.records)
        eventually(lambda count=count: len(tailer.records) > count, 2.0)  # type: ignore[misc]
        assert time.monotonic() - back < 2.0
    done.set()
    publisher.join()
    eventually(lambda: tailer.data()[-1:] == acknowledged[-1:])
    seen = tailer.data()
    assert len(set(seen)) == len(seen)
    assert [data for data in seen if data in set(acknowledged)] == acknowledged
    assert len(seen) - len(acknowledged) <= 3  # stored, but the connection broke before the answer: once a kill
    assert not tailer.replaced and longest < 2.0


def test_probe_that_is_killed_leaves_the_way_to_the_next(
    start: Start, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its publisher hung up while it asked whether Redis is back: for ever nobody else would have asked."""

    class Killed(BaseException):  # as GreenletExit is
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    log = open_redis(start())
    append(log, "before")
    for while_it in ("call", "idle"):  # waits for the answer, looks for a connection
        log._client.breaker.failed("gone")
        log._client.breaker._retry_at = 0.0
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Link, while_it, kill)
            append(log, "killed")
        append(log, f"after {while_it}")
        assert log._client.breaker.closed
    assert [record.data for record in log.read(None, 0, 10, 1000)] == ["before", "after call", "after idle"]


def test_connections_that_redis_closed_cost_nobody_an_event(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    tailer = Tailer(log, closing)
    append(log, "1")
    server.run("CLIENT", "KILL", "TYPE", "normal")
    append(log, "2")
    eventually(lambda: tailer.data() == ["1", "2"])
    assert len(tailer.failures) == 1 and not tailer.replaced


def test_log_can_be_opened_while_redis_is_down(start: Start, open_redis: Open) -> None:
    server = start()
    server.kill()
    log, wrong = open_redis(server), open_redis(server)
    assert refused(log) < KNOWN_DOWN and not log._client.breaker.closed
    server.start()
    until_it_works(log, "x", 2.0)
    server.run("FLUSHALL")
    server.run("SET", META, "foreign")
    eventually(lambda: "is a string" in failure(wrong), 2.0)
    with pytest.raises(LogRefused):
        open_redis(server)
