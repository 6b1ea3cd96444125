"""What differs between a worker with threads and one whose standard library gevent has patched.

``threading`` and ``time.sleep`` are cooperative under gevent's monkey patching, so nearly all code is the same.
The exceptions are here: work that would hold up the event loop, and knowing whether there is one.
"""

from __future__ import annotations

import atexit
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

T = TypeVar("T")


def cooperative() -> bool:
    """Is this process's threading patched by gevent?"""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def spawn(work: Callable[[], object], name: str) -> Any:
    """Run work beside the caller: returns its greenlet under gevent, else starts a daemon thread and returns None."""
    if cooperative():
        from gevent import spawn as spawn_greenlet

        return spawn_greenlet(work)
    threading.Thread(target=work, name=name, daemon=True).start()
    return None


def offload(work: Callable[..., T], *args: Any) -> T:
    """Run blocking disk or network work without holding up other streams: under gevent in a real thread of its
    thread pool, elsewhere just here. Returns what the work returns; raises what it raises. A caller that is interrupted
    hears of it when the work has ended: what it works on is the caller's.

    The pool has ten threads for all of a worker: work waits there behind other work. See :class:`OwnThread`.

    The work must not wait for a lock that greenlets take, too: between threads, gevent's locks lose wake-ups (seen: two
    publishers who waited for ever for a lock that nobody held). See :func:`native_lock`.
    """
    if not cooperative():
        return work(*args)
    from gevent import get_hub

    return _run_in(get_hub().threadpool, work, args)


def _run_in(pool: Any, work: Callable[..., T], args: tuple[Any, ...]) -> T:
    running = pool.spawn(_outcome, work, args)
    try:
        result, error = running.get()
    except BaseException:
        while not running.ready():
            with suppress(BaseException):
                running.wait()
        raise
    if error is None:
        return cast(T, result)
    try:
        raise error
    finally:
        del error, running  # else it and this frame hold each other, and all that is in either


def _outcome(work: Callable[..., T], args: tuple[Any, ...]) -> tuple[T | None, BaseException | None]:
    """What work in gevent's pool comes to. gevent would print an exception to standard error before it hands it on, as
    if nobody handled it."""
    try:
        return work(*args), None
    except BaseException as error:
        return None, error


class OwnThread:
    """:func:`offload` with a thread of one's own, for the one caller that must not wait until the shared pool is free.

    Threat: a crowd that resumes has thousands of reads of the log in the pool's queue.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        if not cooperative():
            return work(*args)
        if self._pool is None:
            from gevent.threadpool import ThreadPool

            self._pool = ThreadPool(1)
        return _run_in(self._pool, work, args)


# A duty that failed has its next turn after this long, seconds.
AFTER_FAILURE = 1.0


def repeat(
    name: str, duty: Callable[[], float], stop: threading.Event, logger: logging.Logger, *, first: float
) -> None:
    """Do a duty until ``stop`` is set: after ``first`` seconds, and then as often as it says, by returning the seconds
    until its next turn.

    An exception costs the duty a turn and never ends the loop. It is logged once, until the duty has worked again.
    """
    pause, failing = first, False
    while not stop.wait(pause):
        try:
            pause = duty()
        except Exception:
            pause = AFTER_FAILURE
            if not failing:
                logger.exception("%s failed; it is tried again each second, and this is said once", name)
            failing = True
        else:
            if failing:
                logger.warning("%s works again", name)
            failing = False


# Seconds between two reports of the same failure.
SAY_AGAIN = 60.0


class Failures:
    """Reports exceptions that loops survive: each kind with its traceback, at most once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: dict[str, float] = {}

    def report(self, what: str) -> None:
        """Log the exception that is being handled. ``what``: what failed, and what follows."""
        now = time.monotonic()
        if now - self._said.get(what, -SAY_AGAIN) >= SAY_AGAIN:
            self._said[what] = now
            self._logger.exception("%s (said once a minute)", what)


def native_lock() -> Any:
    """A lock that real threads may share under gevent, too: it holds up the whole event loop while somebody waits for
    it, so it is for a few steps without a switch in them."""
    if not cooperative():
        return threading.Lock()
    from gevent.monkey import get_original

    return get_original("_thread", "allocate_lock")()


def share_logging() -> None:
    """Let real threads log beside the event loop under gevent: handlers that write to a stream are given real locks.

    Theirs were made gevent's, which lose wake-ups between threads (seen: each thread and greenlet that logs waited for
    ever). Writing to a stream does not switch greenlets, so a real lock is held for a moment only; handlers of other
    kinds, which may switch, keep what they have. To be called once a process has its handlers.
    """
    if not cooperative():
        return
    from gevent.monkey import get_original

    make_lock = get_original("_thread", "RLock")
    logging._lock = make_lock()  # type: ignore[attr-defined]
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if isinstance(handler, logging.StreamHandler):
            handler.lock = make_lock()


def breathe() -> None:
    """Let others run: everything that is ready, new requests and probes among it.

    ``gevent.sleep(0)`` does not do that: it lets run what was scheduled, and gevent looks at its sockets only after a
    thousand such turns. A timer that has already expired makes the loop poll them once, without waiting.
    """
    if not cooperative():
        time.sleep(0)
        return
    from gevent import get_hub

    hub = get_hub()
    with hub.loop.timer(0) as timer:
        hub.wait(timer)


class Turn:
    """Lets those who do the same in one turn of the event loop do it together.

    Whoever comes second in a turn is not alone, and waits until all have been heard who were ready by then. Who comes
    alone goes on at once. Where there is no event loop nobody waits: threads meet at a lock.
    """

    def __init__(self) -> None:
        self._now = -1.0  # of the turn in which somebody came last
        self._hub: Callable[[], Any] | None = None
        if cooperative():
            from gevent._hub_local import get_hub_if_exists  # a thread of gevent's pool has none, and is to make none

            self._hub = get_hub_if_exists

    def gather(self) -> None:
        hub = self._hub and self._hub()
        if hub is None:
            return
        now = hub.loop.now()  # as of the turn's begin
        if now != self._now:
            self._now = now
            return
        from gevent import sleep

        sleep(0)


# Tracked objects in excess of those freed, and how many collections of one generation make one of the next. A batch of
# 1,000 events from Redis is 5,000 objects: by Python's own 700, 10, 10 the collector took as long as the events, and
# stopped the worker for 50 to 100 ms in a row to look at a full window (70,000 frames, which are in no cycle).
COLLECT_AFTER = (10_000, 50, 50)


def settle_collector() -> None:
    """Let the garbage collector leave alone what is there for good, and look at the rest less often. For a process of
    our own, once its app is loaded: what is garbage now is collected, the rest is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    # However the process ends, what was left alone goes while all that it needs for that is still there. (Seen: a log
    # handler that went after gevent's modules had, with a traceback at the end of workers, of refused starts, too.)
    atexit.register(gc.unfreeze)
