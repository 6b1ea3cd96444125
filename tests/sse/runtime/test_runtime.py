"""What differs between threads and gevent's loop; under gevent's patches in processes of their own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sse.runtime.cooperation import offload
from sse.runtime.single_flight import SingleFlight
from tests.sse.log.children import run
from tests.support.wait import eventually

# --- Callers that share a fetch ------------------------------------------------------------------------------------


class Fetch:
    """A fetch that lasts until `land` is set."""

    def __init__(self, outcome: Any = "page") -> None:
        self.calls = 0
        self.land = threading.Event()
        self._outcome = outcome

    def __call__(self) -> Any:
        self.calls += 1
        assert self.land.wait(5)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def joined(flights: SingleFlight, key: str, callers: int) -> bool:
    """Do so many wait for this key's fetch?"""
    flight = flights._flights.get(key)
    return flight is not None and len(flight.landed._cond._waiters) >= callers  # type: ignore[attr-defined]


def test_callers_that_ask_for_the_same_meanwhile_share_one_fetch() -> None:
    flights, fetch, other = SingleFlight(), Fetch(), Fetch("other")
    other.land.set()
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(flights.do, "a", fetch) for _ in range(4)]
        eventually(lambda: joined(flights, "a", 3))
        assert pool.submit(flights.do, "b", other).result(5) == "other", "another key had to wait"
        fetch.land.set()
        assert [answer.result(5) for answer in answers] == ["page"] * 4
    assert fetch.calls == 1


def test_a_fetch_that_fails_fails_for_all_who_wait_and_for_nobody_after_them() -> None:
    flights, fetch = SingleFlight(), Fetch(ValueError("told to fail"))
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(flights.do, "a", fetch) for _ in range(3)]
        eventually(lambda: joined(flights, "a", 2))
        fetch.land.set()
        for answer in answers:
            with pytest.raises(ValueError, match="told to fail"):
                answer.result(5)
    assert flights.do("a", lambda: "next") == "next"


def test_what_was_fetched_is_not_kept() -> None:
    flights = SingleFlight()
    assert [flights.do("a", lambda n=n: n) for n in range(3)] == [0, 1, 2]  # type: ignore[misc]


def test_without_an_event_loop_work_is_done_at_once_and_here() -> None:
    assert offload(threading.get_ident) == threading.get_ident()


# --- Under gevent --------------------------------------------------------------------------------------------------

OFFLOAD = """
from gevent import monkey; monkey.patch_all()
import gevent, threading
from gevent.monkey import get_original
from sse.runtime.cooperation import native_lock, offload
ident, sleep = get_original("_thread", "get_ident"), get_original("time", "sleep")
print(offload(ident) != ident())
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)
ticking = gevent.spawn(tick)
offload(sleep, 0.2)
print(len(ticks) > 20)
ended = []
def work():
    sleep(0.3)
    ended.append("work")
def caller():
    try:
        offload(work)
    except gevent.GreenletExit:
        ended.append("caller")
        raise
greenlet = gevent.spawn(caller)
gevent.sleep(0.1)
greenlet.kill()
print(ended)
lock = native_lock()
lock.acquire()
def release():
    sleep(0.1)
    lock.release()
thread = gevent.get_hub().threadpool.spawn(release)
before = len(ticks)
lock.acquire()  # real: it holds up the loop, and is not handed on by it
print(len(ticks) == before)
"""


def test_offloaded_work_leaves_the_loop_alone_and_an_interrupted_caller_waits_for_it() -> None:
    assert run(OFFLOAD) == ["True", "True", "['work', 'caller']", "True"]


TURN = """
from gevent import monkey; monkey.patch_all()
import gevent
from sse.runtime.cooperation import Turn
order = []
def caller(name):
    turn.gather()
    order.append(name)
turn = Turn()
gevent.joinall([gevent.spawn(caller, name) for name in "abc"] + [gevent.spawn(order.append, "ready")])
print(order)
gevent.sleep(0.01)
order.clear()
later = gevent.spawn(order.append, "later")
caller("alone")
print(order)
later.join()
from gevent.monkey import get_original
thread = gevent.get_hub().threadpool.spawn(caller, "thread")
thread.get()
print(order[-1])
"""


def test_who_comes_second_in_a_turn_waits_for_those_who_are_ready_and_who_comes_alone_does_not() -> None:
    assert run(TURN) == ["['a', 'ready', 'b', 'c']", "['alone']", "thread"]


BREATHE = """
from gevent import monkey; monkey.patch_all()
import gevent, socket
from sse.runtime.cooperation import breathe
near, far = socket.socketpair()
heard = []
def listen():
    heard.append(near.recv(1))
greenlet = gevent.spawn(listen)
gevent.sleep(0)
far.send(b"x")
gevent.sleep(0)
print(heard)
breathe()
gevent.sleep(0)
print(heard)
"""


def test_breathing_looks_at_sockets_which_a_sleep_of_no_time_does_not() -> None:
    assert run(BREATHE) == ["[]", "[b'x']"]


COLLECTOR = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count()))
from sse.runtime.cooperation import COLLECT_AFTER, settle_collector
settle_collector()
print(gc.get_freeze_count() > 1000, gc.get_threshold() == COLLECT_AFTER)
raise SystemExit(0)
"""


def test_what_was_left_alone_is_the_collectors_again_when_the_process_ends() -> None:
    assert run(COLLECTOR) == ["True True", "0"]


SHARED = """
import logging, sys
from gevent import monkey; monkey.patch_all()
from gevent.monkey import get_original
from sse.runtime.cooperation import share_logging
handlers = [logging.StreamHandler(open("/dev/null", "w")) for _ in range(2)]
class Queue(logging.Handler): pass
other = Queue()
own = other.lock
share_logging()
real = type(get_original("_thread", "RLock")())
print([type(handler.lock) is real for handler in handlers], type(logging._lock) is real, other.lock is own)
"""


def test_every_handler_that_writes_to_a_stream_gets_a_real_lock_and_no_other() -> None:
    assert run(SHARED) == ["[True, True] True True"]
