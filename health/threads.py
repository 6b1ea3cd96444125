"""Real threads, even if gevent has patched ``threading``.

They are for work that may wait for a disk or block in C code, and must not delay the event loop.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

Spawn = Callable[[Callable[[], None]], object]


def _one_thread() -> Any:
    """Return a gevent pool with one real thread; None if threads are real anyway."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    from gevent.threadpool import ThreadPool

    # Not the hub's own pool, which also resolves names: a few calls that hang would exhaust it.
    return ThreadPool(1)


def real_threads() -> Spawn:
    """Return a function that runs its argument in a real thread."""
    pool = _one_thread()
    if pool is not None:
        spawn: Spawn = pool.spawn
        return spawn

    def start(function: Callable[[], None]) -> None:
        threading.Thread(target=function, name="health-check", daemon=True).start()

    return start


class RealThread:
    """Runs work in one real thread under gevent, else in the caller's thread."""

    def __init__(self) -> None:
        self._pool = _one_thread()

    def run(self, work: Callable[[], None], patience: float) -> None:
        """Run ``work``; under gevent, wait at most ``patience`` seconds for it.

        Raises TimeoutError if it takes longer. The work then goes on, and later work waits for it. Raises what ``work``
        raises.
        """
        if self._pool is None:
            work()
            return
        from gevent import Timeout

        # The time-out covers spawn(), too, which waits while the thread is busy.
        with Timeout(patience, TimeoutError(f"still under way after {patience:g} s")):
            self._pool.spawn(work).get()
