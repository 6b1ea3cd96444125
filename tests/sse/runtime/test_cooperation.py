"""What differs between threads and gevent. gevent is patched in processes of their own."""

from __future__ import annotations

import threading

from sse.runtime.cooperation import offload
from tests.sse.log.children import run


def test_without_an_event_loop_offloaded_work_runs_in_the_callers_thread() -> None:
    assert offload(threading.get_ident) == threading.get_ident()


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
lock.acquire()  # a real lock holds up the loop, and no greenlet runs
print(len(ticks) == before)
"""


def test_offloaded_work_does_not_block_the_loop_and_an_interrupted_caller_waits_for_it() -> None:
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


def test_only_later_callers_of_a_turn_wait_for_those_who_are_ready() -> None:
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


def test_breathe_polls_sockets_and_a_sleep_of_zero_does_not() -> None:
    assert run(BREATHE) == ["[]", "[b'x']"]


COLLECTOR = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count()))
from sse.runtime.cooperation import COLLECT_AFTER, settle_collector
settle_collector()
print(gc.get_freeze_count() > 1000, gc.get_threshold() == COLLECT_AFTER)
raise SystemExit(0)
"""


def test_objects_exempt_from_collection_are_collected_again_at_the_exit() -> None:
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


def test_only_handlers_that_write_to_a_stream_get_real_locks() -> None:
    assert run(SHARED) == ["[True, True] True True"]
