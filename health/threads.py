"""Real threads, also where gevent has replaced ``threading``'s by greenlets: for what may wait for a disk, or block in
C code, and must hold up neither the event loop nor anything that readiness judges."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

Spawn = Callable[[Callable[[], None]], object]


def _one_thread() -> Any:
    """gevent's pool of one real thread; None where threads are real anyway."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    from gevent.threadpool import ThreadPool

    # Not the hub's own pool: name resolution runs there, and a few hanging calls would use it up.
    return ThreadPool(1)


def real_threads() -> Spawn:
    """What runs a function in a real thread."""
    pool = _one_thread()
    if pool is not None:
        spawn: Spawn = pool.spawn
        return spawn

    def start(function: Callable[[], None]) -> None:
        threading.Thread(target=function, name="health-check", daemon=True).start()

    return start


class Aside:
    """Runs work in one real thread, and waits for it as far as others can go on meanwhile."""

    def __init__(self) -> None:
        self._pool = _one_thread()

    def run(self, work: Callable[[], None], patience: float) -> None:
        """Run it. Raises what it raises, and TimeoutError when it goes on for longer than ``patience`` seconds; it is
        not interrupted, and what comes after it waits."""
        if self._pool is None:
            work()  # whoever calls has a thread of its own
            return
        from gevent import Timeout

        # spawn() waits as well, while the thread is busy.
        with Timeout(patience, TimeoutError(f"still under way after {patience:g} s")):
            self._pool.spawn(work).get()
