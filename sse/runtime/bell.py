"""What a follower sleeps on: a call from any thread wakes it, or a descriptor that becomes readable.

Under gevent, the patched `select.poll` would do, but it makes new watchers for every sleep, which was a tenth of a
publish's cost. Here they are made once.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

from .cooperation import cooperative

Awakening: TypeAlias = Literal["rung", "readable", "timeout"]


class Bell(Protocol):
    """For one sleeper, always the same thread or greenlet. Rings while it is awake end its next sleep only."""

    def ring(self) -> None:
        """Wake the sleeper. May be called from any thread, also after `close`."""
        ...

    def wait(self, seconds: float) -> Awakening:
        """Sleep until somebody rings, a descriptor is readable or `seconds` have passed; return which it was.

        A descriptor is left unread, so it ends the next sleep, too.
        """
        ...

    def close(self) -> None:
        """Release everything but the descriptors, which are their owner's."""
        ...


def make_bell(descriptors: Sequence[int]) -> Bell:
    """Return a bell for the thread or greenlet that calls this."""
    return GeventBell(descriptors) if cooperative() else ThreadBell(descriptors)


class ThreadBell:
    """Rings through a pipe."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._lock = threading.Lock()  # a late ring must not write to a file that got the closed descriptor's number
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._poll = select.poll()
        for descriptor in (self._reader, *descriptors):
            self._poll.register(descriptor, select.POLLIN)

    def ring(self) -> None:
        with self._lock:
            if self._writer >= 0:
                try:
                    os.write(self._writer, b"\0")
                except BlockingIOError:
                    pass  # the pipe is full of rings

    def wait(self, seconds: float) -> Awakening:
        ready = [descriptor for descriptor, _ in self._poll.poll(max(seconds, 0) * 1000)]
        if not ready:
            return "timeout"
        if self._reader not in ready:
            return "readable"
        try:
            os.read(self._reader, 65536)
        except BlockingIOError:
            pass
        return "rung"

    def close(self) -> None:
        with self._lock:
            os.close(self._writer)
            self._writer = -1
        os.close(self._reader)


class GeventBell:
    """Uses watchers of the thread's event loop, which are active only during a sleep."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        from gevent import get_hub
        from gevent.hub import Waiter
        from gevent.monkey import get_original

        self._hub = get_hub()
        self._make_waiter = Waiter
        self._thread_ident = get_original("_thread", "get_ident")  # the patched one tells greenlets apart
        self._thread = self._thread_ident()
        self._waiter: Any = None  # the sleeper's, until somebody wakes it
        self._rung = False
        self._closed = False
        loop = self._hub.loop
        self._watchers = [loop.io(descriptor, 1) for descriptor in descriptors]  # 1: libev's EV_READ
        self._from_thread = loop.async_(ref=False)  # for rings from other threads
        self._from_thread.start(self._wake)

    def ring(self) -> None:
        if self._thread_ident() != self._thread:
            # Another thread must not look at the sleeper, which may be about to sleep.
            if not self._closed:
                self._from_thread.send()
            return
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._rung = True
        else:
            self._hub.loop.run_callback(waiter.switch, "rung")

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._rung = True
        else:
            waiter.switch("rung")

    def wait(self, seconds: float) -> Awakening:
        if self._rung:
            self._rung = False
            return "rung"
        waiter = self._waiter = self._make_waiter(self._hub)
        timer = self._hub.loop.timer(max(seconds, 0))
        try:
            timer.start(waiter.switch, "timeout")
            for watcher in self._watchers:
                watcher.start(waiter.switch, "readable")
            awakening: Awakening = waiter.get()
        finally:
            self._waiter = None
            timer.close()
            for watcher in self._watchers:
                watcher.stop()
        self._rung = False
        return awakening

    def close(self) -> None:
        self._closed = True
        self._from_thread.close()
        for watcher in self._watchers:
            watcher.close()
