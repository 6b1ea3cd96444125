"""What differs between a worker with threads and one whose standard library gevent has patched.

Under gevent's monkey patching ``threading`` and ``time.sleep`` are cooperative, so nearly all code is the same for
both. This module has the exceptions: work that would hold up the event loop, and knowing whether there is one.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")


def cooperative() -> bool:
    """Tell whether gevent has patched this process's threading."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def spawn(work: Callable[[], object], name: str) -> Any:
    """Run work beside the caller: in a greenlet, which is returned, or else in a daemon thread; then return None."""
    if cooperative():
        from gevent import spawn as spawn_greenlet

        return spawn_greenlet(work)
    threading.Thread(target=work, name=name, daemon=True).start()
    return None


def throw_into(greenlet: Any, error: type[BaseException], wanted: Callable[[], bool]) -> None:
    """Raise an exception in a greenlet of :func:`spawn` where it waits, if ``wanted()`` still holds then.

    Returns at once; any thread may call it.
    """

    def throw() -> None:
        if wanted() and not greenlet.dead:
            greenlet.throw(error)

    greenlet.loop.run_callback_threadsafe(throw)


def offload(work: Callable[..., T], *args: Any) -> T:
    """Run blocking disk or network work without holding up other streams; return what it returns, raise what it raises.

    Under gevent it runs in a real thread of gevent's pool, elsewhere in the caller's. The pool has ten threads for the
    whole worker, so work may wait behind other work; see :class:`OwnThread`. An interrupted caller still waits for the
    work, which uses its objects; then the interruption is raised.

    The work must not wait for a lock that greenlets take, too: between threads, gevent's locks lose wake-ups (seen: two
    publishers waited for ever for a lock that nobody held). See :func:`native_lock`.
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
        del error, running  # the error's traceback refers to this frame: a cycle, which would keep both alive


def _outcome(work: Callable[..., T], args: tuple[Any, ...]) -> tuple[T | None, BaseException | None]:
    """Return the work's result and its exception. gevent's pool would print an exception to standard error."""
    try:
        return work(*args), None
    except BaseException as error:
        return None, error


class OwnThread:
    """:func:`offload` with a thread of its own, for a caller that must not wait until the shared pool is free.

    Threat: when a crowd resumes, thousands of reads of the log wait in the pool's queue.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        if _prepared_in == os.getpid():
            self(_make_hub)

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        if not cooperative():
            return work(*args)
        if self._pool is None:
            from gevent.threadpool import ThreadPool

            self._pool = ThreadPool(1)
        return _run_in(self._pool, work, args)


# The process whose threads have their event loops from the beginning; a fork's child has other threads.
_prepared_in = 0
_PREPARE_SECONDS: Final = 5.0


def prepare_threads() -> None:
    """Start the threads of gevent's pool, and those of each later :class:`OwnThread`, with an event loop each.

    For a log whose reads and writes, in such a thread, wait for a socket. The thread would make its loop then, and if
    the process has no descriptor left, libev aborts it.
    """
    global _prepared_in
    if _prepared_in == os.getpid() or not cooperative():
        return
    from gevent import get_hub
    from gevent.monkey import get_original

    _prepared_in = os.getpid()
    pool, sleep, made = get_hub().threadpool, get_original("time", "sleep"), list[None]()
    give_up = time.monotonic() + _PREPARE_SECONDS

    def begin() -> None:
        _make_hub()
        made.append(None)
        while len(made) < pool.maxsize and time.monotonic() < give_up:
            sleep(0.001)  # holds its thread, so that the others begin in threads of their own

    for running in [pool.spawn(begin) for _ in range(pool.maxsize)]:
        running.get()


def _make_hub() -> None:
    from gevent import get_hub

    get_hub()


def native_lock() -> Any:
    """Return a lock that real threads can share, under gevent, too.

    Whoever waits for it holds up the whole event loop. So hold it for a few steps only, and never across a switch.
    """
    if not cooperative():
        return threading.Lock()
    from gevent.monkey import get_original

    return get_original("_thread", "allocate_lock")()


def share_logging() -> None:
    """Let real threads log beside gevent's event loop: give handlers that write to a stream real locks.

    gevent's locks lose wake-ups between threads (seen: every thread and greenlet that logged waited for ever). Writing
    to a stream does not switch greenlets, so a real lock is held only for a moment. Handlers of other kinds may switch
    and keep their locks. To be called once a process has its handlers.
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
    """Let everything run that is ready, also new requests and probes.

    ``gevent.sleep(0)`` runs only what was scheduled; gevent polls its sockets only after a thousand such turns. A timer
    that has already expired makes the loop poll them once, without waiting.
    """
    if not cooperative():
        time.sleep(0)
        return
    from gevent import get_hub

    hub = get_hub()
    with hub.loop.timer(0) as timer:
        hub.wait(timer)


def turn_clock() -> Callable[[], float]:
    """Return a function that tells when this turn of the caller's event loop began; always 0.0 without a loop."""
    if not cooperative():
        return float
    from gevent import get_hub

    now: Callable[[], float] = get_hub().loop.now
    return now


class Turn:
    """Batches callers that arrive in the same turn of the event loop.

    The first caller of a turn goes on at once. A later one waits until everyone who was ready has run. Without an event
    loop nobody waits: threads meet at a lock.
    """

    def __init__(self) -> None:
        self._now = -1.0  # the loop's time in the last caller's turn
        self._hub: Callable[[], Any] | None = None
        if cooperative():
            from gevent._hub_local import (
                get_hub_if_exists,
            )  # a thread of gevent's pool has no hub and must not make one

            self._hub = get_hub_if_exists

    def gather(self) -> None:
        hub = self._hub and self._hub()
        if hub is None:
            return
        now = hub.loop.now()  # the time at which this turn began
        if now != self._now:
            self._now = now
            return
        from gevent import sleep

        sleep(0)


# The arguments of gc.set_threshold. A batch of 1,000 events from Redis is 5,000 objects. With Python's own 700, 10, 10
# the collector took as much time as the events, and stopped the worker for 50 to 100 ms to look at a full window
# (70,000 frames, which are in no cycle).
COLLECT_AFTER = (10_000, 50, 50)


def settle_collector() -> None:
    """Collect garbage now, exempt what is left from collection, and collect less often.

    For a process of our own, once its app is loaded: what is there then stays for good.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    # At the exit, objects must be collected while the modules that they need are still there. (Seen: a traceback at the
    # end of workers, from a log handler that was collected after gevent's modules.)
    atexit.register(gc.unfreeze)
