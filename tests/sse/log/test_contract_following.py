"""The contract of following, for every engine: who follows gets everything, in order, soon, and cooperatively."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sse.events.model import Event
from sse.log import Log
from tests.sse.log.children import run
from tests.sse.log.conftest import Follower, Place, data, fill, trim_all
from tests.support.wait import eventually

LIMIT, BYTES = 1000, 1 << 30


def test_follower_gets_the_backlog_then_what_comes(log: Log, follow: Callable[..., Follower]) -> None:
    positions = [p for _ in range(5) for p in log.append([Event("a", "x" * 2000)] * 700)]
    follower = follow(log, positions[9])
    follower.wait_for(3490)
    for n in range(20):
        positions += fill(log, "ab")
        follower.wait_for(3492 + 2 * n)
    assert [record.position for record in follower.records] == positions[10:]


def test_follower_is_woken_at_once(log: Log, follow: Callable[..., Follower]) -> None:
    follower = follow(log)
    eventually(lambda: follower.reports)
    started = time.monotonic()
    for n in range(1, 11):
        fill(log, "a")
        follower.wait_for(n)
    assert time.monotonic() - started < 4  # with one look a second it would be ten


def test_follower_of_a_quiet_log_reports_at_least_once_a_second(log: Log, follow: Callable[..., Follower]) -> None:
    follower = follow(log)
    eventually(lambda: follower.reports == 1)
    eventually(lambda: follower.reports == 2, 2)
    assert follower.records == []


def test_follower_that_begins_before_what_was_trimmed_rests_too(place: Place, follow: Callable[..., Follower]) -> None:
    log = place.open(retain_events=1)
    fill(log, "aaa")
    trim_all(log)
    follower = follow(log, 0)
    eventually(lambda: data(follower.records) == ["2"])
    time.sleep(0.2)
    assert follower.reports <= 2


def test_follower_ends_when_told_to(log: Log, follow: Callable[..., Follower]) -> None:
    follower = follow(log)
    eventually(lambda: follower.reports)
    started = time.monotonic()
    follower.stop()
    assert time.monotonic() - started < 0.9  # its next look of its own is a second away


@pytest.mark.parametrize("end", ["told to", "the log closes"])
def test_follower_that_would_sleep_for_a_minute_ends_at_once(
    place: Place, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sse.log.sqlite.follow.QUIET_SECONDS", "sse.log.memory.QUIET_SECONDS"):
        monkeypatch.setattr(name, 60.0)
    monkeypatch.setattr("sse.log.redis.follow.BLOCK_MS", 60_000)
    log = place.open()
    follower = Follower(log)
    eventually(lambda: follower.reports)
    time.sleep(0.05)  # it looks once more, and lies down
    if end == "told to":
        follower._stop.set()
        log.wake()
    else:
        log.close()
    assert follower.ended(10)


def test_two_followers_of_one_log_get_everything_each(log: Log, follow: Callable[..., Follower]) -> None:
    followers = [follow(log), follow(log)]
    for _ in range(50):
        fill(log, "ab")
    for follower in followers:
        follower.wait_for(100)
        assert follower.records == log.read(None, 0, LIMIT, BYTES)


def test_worker_follows_what_another_one_appends(shared_place: Place, follow: Callable[..., Follower]) -> None:
    writer, reader = shared_place.open(), shared_place.open()
    follower = follow(reader)
    started = time.monotonic()
    for n in range(1, 11):
        fill(writer, "a")
        follower.wait_for(n)
    assert time.monotonic() - started < 4
    assert follower.records == reader.read(None, 0, LIMIT, BYTES)


GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, threading, time
import gevent
from sse.events.model import Event
from sse.log import open_log

log = open_log(sys.argv[1], retain_events=100, retain_seconds=1000)
late = [0.0]
def tick():
    while True:
        before = time.monotonic()
        time.sleep(0.005)
        late[0] = max(late[0], time.monotonic() - before)
ticker = gevent.spawn(tick)
stop = threading.Event()
seen = []
def follow():
    for batch in log.follow(0, stop):
        seen.extend(batch)
follower = threading.Thread(target=follow)
follower.start()
def publish(n):
    for i in range(50):
        log.append([Event("a", f"{n}.{i}")])
        time.sleep(0.001)
publishers = [gevent.spawn(publish, n) for n in range(10)]
pool = gevent.get_hub().threadpool
def trim():
    while not all(publishers):
        pool.apply(log.trim)
        pool.apply(log.read, (["a"], 0, 50, 10000))
        time.sleep(0.002)
trimmer = gevent.spawn(trim)
gevent.joinall(publishers, raise_error=True, timeout=15)
trimmer.get(timeout=15)
time.sleep(1.3)  # quiet: a follower that does not wait cooperatively would hold up the ticker for a second
stop.set(); log.wake(); follower.join()
assert len(seen) == 500 and len({record.data for record in seen}) == 500, len(seen)
assert [r.position for r in seen] == sorted(r.position for r in seen)
log.close()
print(late[0])
"""


def test_nothing_holds_up_the_event_loop_under_gevent(place: Place) -> None:
    (late,) = run(GEVENT, place.url)
    assert float(late) < 0.5
