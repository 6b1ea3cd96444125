"""The idle time-out of a connection: one event-loop timer for all of its requests."""

from __future__ import annotations

import math
import time
from typing import Any

from .reader import HeaderTimeout


class IdleTimer:
    """The idle time-out of one connection. Unlike gevent's Timeout, it does not create, start and stop a timer for each
    request: the timer keeps running, and if it fires early, it restarts for the remaining time."""

    __slots__ = ("_fires", "_timer", "_until", "_waiting")

    def __init__(self) -> None:
        self._timer: Any = None
        self._fires = math.inf  # when the timer fires, unless stopped; seconds, monotonic
        self._until = math.inf  # when the idle time ends
        self._waiting: Any = None  # the greenlet to interrupt when it ends

    def wait(self, event: Any, limit: float) -> None:
        """Wait for gevent's watcher ``event``, at most ``limit`` seconds (0: no limit). Raises HeaderTimeout."""
        from gevent import get_hub, getcurrent

        hub = get_hub()
        if limit:
            self._until = time.monotonic() + limit
            if self._until < self._fires:
                self._start(hub.loop, limit)
        else:
            self._until = math.inf
        self._waiting = getcurrent()
        try:
            hub.wait(event)
        finally:
            self._waiting = None

    def _start(self, loop: Any, seconds: float) -> None:
        self.close()
        self._timer = loop.timer(seconds)
        self._timer.start(self._fired, loop)
        self._fires = time.monotonic() + seconds

    def _fired(self, loop: Any) -> None:
        self._fires = math.inf
        if self._waiting is None or self._until == math.inf:
            return
        left = self._until - time.monotonic()
        if left > 0:
            self._start(loop, left)
        else:
            self._waiting.throw(HeaderTimeout())

    def close(self) -> None:
        """Stop and release the timer. Idempotent."""
        timer, self._timer, self._fires = self._timer, None, math.inf
        if timer is not None:
            timer.close()
