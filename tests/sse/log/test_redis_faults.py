"""What the Redis log does when Redis stops, dies, forgets, fills up or is exchanged: nothing lost, or told."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from sse.event import Event, Record
from sse.log import Log, LogRefused, LogUnavailable
from sse.log.redis import LogReplaced, RedisLog
from tests.sse.log.children import run
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

KNOWN_DOWN = 0.25  # seconds in which a publisher is answered while Redis is known to be down
META, EVENTS = "{headwater}:meta", "{headwater}:events"


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def start(closing: contextlib.ExitStack) -> Callable[..., RedisServer]:
    """``start(**config)``: a Redis of this test's own."""
    return lambda **config: closing.enter_context(RedisServer(**config))


@pytest.fixture
def open_redis(closing: contextlib.ExitStack) -> Callable[[str], RedisLog]:
    def open_at(url: str) -> RedisLog:
        log = RedisLog.from_url(url, retain_events=100_000, retain_seconds=86_400)
        closing.callback(log.close)
        return log

    return open_at


class Tailer:
    """Follows as the hub does: again and again, from where it was; after `LogReplaced` from the new log's end."""

    def __init__(self, log: Log, closing: contextlib.ExitStack) -> None:
        self.records: list[Record] = []
        self.failures: list[LogUnavailable] = []
        self.replaced: list[LogReplaced] = []
        self.story: list[str] = []  # what came, and when it was replaced
        self.answered_at = 0.0
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        closing.callback(self.stop)
        eventually(lambda: self.answered_at)

    def _run(self) -> None:
        position = 0
        while not self._stop.is_set():
            try:
                for batch in self._log.follow(position, self._stop):
                    self.answered_at = time.monotonic()
                    if batch:
                        self.records += batch
                        self.story += [record.data for record in batch]
                        position = batch[-1].position
            except LogReplaced as error:
                self.replaced.append(error)
                self.story.append("replaced")
                position = self._log.bounds().trimmed
            except LogUnavailable as error:
                self.failures.append(error)
                self._stop.wait(0.1)

    def data(self) -> list[str]:
        return [record.data for record in self.records]

    def stop(self) -> None:
        self._stop.set()
        self._log.wake()
        self._thread.join(5)
        assert not self._thread.is_alive()


def append(log: Log, data: str, **options: Any) -> int:
    return log.append([Event("a", data)], **options)[0]


def refused(log: Log, data: str = "x") -> float:
    """Append in vain; returns how long that took."""
    started = time.monotonic()
    with pytest.raises(LogUnavailable) as refusal:
        append(log, data)
    assert 0 < refusal.value.retry_after <= 1
    return time.monotonic() - started


def until_it_works(log: Log, data: str, within: float) -> None:
    def works() -> bool:
        with contextlib.suppress(LogUnavailable):
            return append(log, data) > 0
        return False

    eventually(works, within)


# --- Redis does not answer --------------------------------------------------------------------------------------


def test_frozen_redis_costs_one_time_out_and_nothing_is_stored_late(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server.url)
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


def test_publishers_that_wait_for_a_connection_do_not_wait_twice(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog]
) -> None:
    server = start()
    log = open_redis(server.url)
    server.pause()
    with ThreadPoolExecutor(40) as pool:
        assert max(pool.map(lambda _: refused(log), range(40))) < 2.6


GEVENT = """
from gevent import monkey; monkey.patch_all()
import os, signal, sys, time
import gevent
from sse.event import Event
from sse.log import LogUnavailable
from sse.log.redis import RedisLog

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


def test_frozen_redis_holds_up_no_event_loop(start: Callable[..., RedisServer]) -> None:
    server = start()
    first, second, late = map(float, run(GEVENT, server.url, server.process.pid)[0].split())
    assert first < 2.6 and second < KNOWN_DOWN and late < 0.3


def test_log_closes_at_once_while_redis_is_frozen(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server.url)
    tailer = Tailer(log, closing)
    server.pause()
    started = time.monotonic()
    tailer.stop()
    log.close()
    assert time.monotonic() - started < 0.5


# --- Redis dies -------------------------------------------------------------------------------------------------


def test_nothing_acknowledged_is_lost_or_repeated_when_redis_is_killed(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server.url)
    tailer = Tailer(open_redis(server.url), closing)
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


def test_connections_that_redis_closed_cost_nobody_an_event(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server.url)
    tailer = Tailer(log, closing)
    append(log, "1")
    server.run("CLIENT", "KILL", "TYPE", "normal")
    append(log, "2")
    eventually(lambda: tailer.data() == ["1", "2"])
    assert len(tailer.failures) == 1 and not tailer.replaced


def test_log_can_be_opened_while_redis_is_down(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog]
) -> None:
    server = start()
    server.kill()
    log, wrong = open_redis(server.url), open_redis(server.url)
    assert refused(log) < KNOWN_DOWN
    server.start()
    until_it_works(log, "x", 2.0)
    server.run("FLUSHALL")
    server.run("SET", META, "foreign")
    eventually(lambda: "is a string" in failure(wrong), 2.0)
    with pytest.raises(LogRefused):
        open_redis(server.url)


def failure(log: Log) -> str:
    with pytest.raises(LogUnavailable) as refusal:
        log.bounds()
    return str(refusal.value)


# --- Redis forgets ----------------------------------------------------------------------------------------------


def test_flushed_redis_is_told_before_the_first_event_of_the_new_log(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log, other = open_redis(server.url), open_redis(server.url)
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
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server.url)
    tailer = Tailer(log, closing)
    append(log, "old")
    eventually(lambda: tailer.records)
    server.run("FLUSHALL")
    eventually(lambda: tailer.replaced, 1.2)
    append(log, "new")
    eventually(lambda: tailer.data() == ["old", "new"])
    assert len(tailer.replaced) == 1


@pytest.mark.parametrize("overtaken", [False, True], ids=["still older", "with newer events since"])
def test_redis_that_came_back_with_an_older_copy_is_told(
    start: Callable[..., RedisServer],
    open_redis: Callable[[str], RedisLog],
    closing: contextlib.ExitStack,
    overtaken: bool,
) -> None:
    server = start(appendonly="no")
    log = open_redis(server.url)
    append(log, "saved")
    server.run("SAVE")
    position = append(log, "forgotten")
    stop = threading.Event()
    assert sum(len(next(log.follow(0, stop))) for _ in range(1)) == 2
    server.kill()
    server.start()
    if overtaken:
        assert append(open_redis(server.url), "newer") > position
    with pytest.raises(LogReplaced, match="older copy|ends at"):
        next(log.follow(position, stop))
    bounds = log.bounds()
    assert append(log, "next") > max(position, bounds.latest)


# --- Redis refuses ----------------------------------------------------------------------------------------------


def test_full_redis_stores_nothing_and_still_reads(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server.url)
    tailer = Tailer(log, closing)
    append(log, "1")
    server.run("CONFIG", "SET", "maxmemory", "1kb")
    with pytest.raises(LogUnavailable, match="Redis is full"):
        log.append([Event("a", "2"), Event("new", "3")], key="k")
    assert [record.data for record in log.read(None, 0, 10, 1000)] == ["1"]
    assert server.run("KEYS", "*:ch:new") == server.run("KEYS", "*:key:*") == []
    server.run("CONFIG", "SET", "maxmemory", "0")
    append(log, "4", key="k")
    eventually(lambda: tailer.data() == ["1", "4"])
    assert not tailer.failures


def test_master_that_became_a_replica_takes_no_events_and_loses_none(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server.url)
    tailer = Tailer(log, closing)
    append(log, "1")
    server.run("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(LogUnavailable, match="is a replica"):
        append(log, "2")
    server.run("REPLICAOF", "NO", "ONE")
    append(log, "3")
    eventually(lambda: tailer.data() == ["1", "3"])
    assert not tailer.replaced


def test_redis_that_cannot_save_is_named(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog]
) -> None:
    server = start(appendonly="no", save="3600 100000")
    log = open_redis(server.url)
    append(log, "1")
    shutil.rmtree(server.directory)
    server.run("BGSAVE")
    eventually(lambda: server.run("INFO", "persistence")["rdb_last_bgsave_status"] == "err")
    with pytest.raises(LogUnavailable, match="cannot save to its disk"):
        append(log, "2")


# --- Replicas and Sentinel --------------------------------------------------------------------------------------


def test_event_without_its_replicas_is_not_acknowledged_and_a_repetition_waits_for_them(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog]
) -> None:
    master = start(repl_diskless_sync_delay=0)
    log = open_redis(f"{master.url}?replicas=1")
    with pytest.raises(LogUnavailable, match="only 0 of 1 replicas"):
        append(log, "x", key="k")
    replica = replicate(start, master)
    eventually(lambda: not unconfirmed(log, "x"))
    assert len(replica.run("XRANGE", EVENTS, "-", "+")) == 1


def replicate(start: Callable[..., RedisServer], master: RedisServer) -> RedisServer:
    replica = start(replicaof=f"127.0.0.1 {master.port}")
    # Not before the master has heard of it does WAIT count it.
    eventually(lambda: master.run("INFO", "replication").get("slave0", {}).get("state") == "online", 10)
    return replica


def test_sentinel_leads_to_the_new_master_and_nothing_is_lost(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog], closing: contextlib.ExitStack
) -> None:
    old = start(repl_diskless_sync_delay=0)
    new = replicate(start, old)
    nobody = start()
    sentinel = start(
        sentinel=True,
        monitor=f"sentinel monitor main 127.0.0.1 {old.port} 1",
        down="sentinel down-after-milliseconds main 300",
        timeout="sentinel failover-timeout main 2000",
    )
    nobody.kill()
    log = open_redis(
        f"redis+sentinel://127.0.0.1:{nobody.port},127.0.0.1:{sentinel.port}/main?replicas=1"
    )
    tailer = Tailer(log, closing)
    append(log, "1")
    eventually(lambda: sentinel.run("SENTINEL", "REPLICAS", "main"))
    old.kill()
    eventually(lambda: is_master(new), 15)
    # Its only replica is gone with the old master; so it is stored, but not confirmed.
    eventually(lambda: "2" in tailer.data() or not unconfirmed(log, "2"), 5)
    eventually(lambda: tailer.data()[:1] + tailer.data()[-1:] == ["1", "2"])
    assert not tailer.replaced


def is_master(server: RedisServer) -> bool:
    with contextlib.suppress(redis.ConnectionError):  # Sentinel ends all connections when it promotes
        return bool(server.run("ROLE")[0] == b"master")
    return False


def unconfirmed(log: Log, data: str) -> bool:
    with contextlib.suppress(LogUnavailable):
        append(log, data, key="k")
        return False
    return True


def test_unknown_service_is_named(
    start: Callable[..., RedisServer], open_redis: Callable[[str], RedisLog]
) -> None:
    sentinel = start(sentinel=True)
    log = open_redis(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
    with pytest.raises(LogUnavailable, match="no Sentinel names a master of other.*does not know it"):
        log.bounds()
