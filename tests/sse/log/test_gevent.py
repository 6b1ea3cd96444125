"""Logs under gevent, where some of the work is done in real threads beside the event loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sse.log.children import run
from tests.sse.log.redis_place import redis_server

FLOOD = """
import sys
from gevent import monkey
monkey.patch_all()
import threading
import flask
import gevent
from sse.events.model import Event
from sse import SSE
from sse.runtime.cooperation import offload
from sse.settings import Settings
sse = SSE(flask.Flask("app"), Settings.from_mapping({"SSE_LOG": sys.argv[1], "SSE_RETAIN_EVENTS": "200000"})).current
log = sse.log
stop, seen, busy = threading.Event(), [], True

def follow():
    for batch in log.follow(log.bounds().latest, stop):
        seen.extend(record.position for record in batch)

def publish(size, times):
    return [position for _ in range(times) for position in sse.append([Event("a", "x")] * size)]

def look_on():
    while busy:
        offload(log.trim)
        offload(log.bounds)

follower, others = gevent.spawn(follow), [gevent.spawn(look_on) for _ in range(2)]
gevent.sleep(0.05)
publishers = [gevent.spawn(publish, 150, 120) for _ in range(6)] + [gevent.spawn(publish, 1, 400) for _ in range(4)]
gevent.joinall(publishers, raise_error=True)
busy = False
gevent.joinall(others, raise_error=True)
stored = sorted(position for publisher in publishers for position in publisher.value)
with gevent.Timeout(10):
    while len(seen) < len(stored):
        gevent.sleep(0.01)
print(seen == stored)
stop.set()
log.wake()
follower.join()
sse.stop()
"""


@pytest.mark.parametrize("engine", ["sqlite", "memory", "redis"])
def test_nobody_waits_for_ever_when_threads_and_the_event_loop_meet(
    engine: str, path: Path, request: pytest.FixtureRequest
) -> None:
    """gevent's locks lose wake-ups between threads: publishers of batches hung, with nobody there to hold the lock."""
    urls = {"sqlite": f"sqlite:///{path}", "memory": "memory:"}
    assert run(FLOOD, urls.get(engine) or redis_server(request).url, timeout=60) == ["True"]


INTERRUPTED = """
import sys
from gevent import monkey
monkey.patch_all()
import gevent
from sse.events.model import Event
from sse.log import open_log
log = open_log(f"sqlite:///{sys.argv[1]}", retain_events=10**6, retain_seconds=1000)
other = open_log(f"sqlite:///{sys.argv[1]}", retain_events=10**6, retain_seconds=1000)
other._writer.execute("BEGIN IMMEDIATE")
leader = gevent.spawn(log.append, [Event("a", "x")] * 500)
gevent.sleep(0.1)
waiting = gevent.spawn(log.append, [Event("b", "y")])
gevent.sleep(0.1)
leader.kill(block=False)
gevent.sleep(0.1)
print(leader.dead, waiting.dead)
other._writer.execute("ROLLBACK")
gevent.joinall([leader, waiting])
print(len(log.append([Event("c", "z")] * 200)))
found = log.read(None, 0, 10**6, 1 << 30)
print(len(waiting.value), sum(r.channel == "b" for r in found), sum(r.channel == "a" for r in found) in (0, 500))
"""


def test_a_publisher_that_is_killed_leaves_the_log_when_its_thread_has(path: Path) -> None:
    """Its transaction is the log's: the next one must not begin in the middle of it."""
    assert run(INTERRUPTED, path) == ["False False", "200", "1 1 True"]


LOGGING = """
import sys
import logging
handler = logging.StreamHandler(open("/dev/null", "w"))
logger = logging.getLogger("a")
logger.propagate = False
logger.addHandler(handler)
from gevent import monkey
monkey.patch_all()
import flask
import gevent
from sse import SSE
from sse.runtime.cooperation import offload
from sse.settings import Settings
sse = SSE(flask.Flask("app"), Settings.from_mapping({"SSE_LOG": "memory:"})).current
sse.start()

def work():
    for _ in range(2000):
        logger.warning("from a thread")

def serve():
    for _ in range(2000):
        logger.warning("from the event loop")
        gevent.sleep(0)

gevent.joinall([gevent.spawn(offload, work) for _ in range(3)] + [gevent.spawn(serve) for _ in range(3)])
print("all have logged")
sse.stop()
"""


def test_threads_and_the_event_loop_may_log_at_once() -> None:
    """A logging handler's lock is gevent's, too; one lost wake-up there stopped everybody who logs."""
    assert run(LOGGING, timeout=60) == ["all have logged"]
