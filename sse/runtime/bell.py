"""What a follower sleeps on: it is woken by a call from any thread, or by a descriptor that turns readable.

Under gevent's monkey patching `select.poll` would do, too; but it makes its watchers anew for every sleep, which was
a tenth of what a publish costs. Here they are made once.
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
    """For one sleeper at a time, who is always the same thread or greenlet. Several rings while nobody sleeps end the
    next sleep, and only that."""

    def ring(self) -> None:
        """Wake the sleeper; from any thread, also after `close`."""
        ...

    def wait(self, seconds: float) -> Awakening:
        """Sleep until somebody rings, a descriptor is readable (it stays so until it is read) or `seconds` have
        passed; say which it was."""
        ...

    def close(self) -> None:
        """Let go of everything; the descriptors are left to their owner."""
        ...


def make_bell(descriptors: Sequence[int]) -> Bell:
    """A bell for the thread or greenlet that calls this."""
    return GeventBell(descriptors) if cooperative() else ThreadBell(descriptors)


class ThreadBell:
    """With a pipe to ring through."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._lock = threading.Lock()  # a late ring must not write into whatever got the descriptor next
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
                    pass  # thousands of rings are waiting to be heard

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
    """With watchers of the thread's event loop, which run only while somebody sleeps."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        from gevent import get_hub
        from gevent.hub import Waiter
        from gevent.monkey import get_original

        self._hub = get_hub()
        self._make_waiter = Waiter
        self._thread_ident = get_original("_thread", "get_ident")  # the patched one tells greenlets apart
        self._thread = self._thread_ident()
        self._waiter: Any = None  # of a sleeper whom nobody has woken yet
        self._rung = False
        self._closed = False
        loop = self._hub.loop
        self._watchers = [loop.io(descriptor, 1) for descriptor in descriptors]  # 1: libev's EV_READ
        self._elsewhere = loop.async_(ref=False)  # what another thread may ring
        self._elsewhere.start(self._wake)

    def ring(self) -> None:
        if self._thread_ident() != self._thread:
            # It must not look at the sleeper, who may be about to lie down.
            if not self._closed:
                self._elsewhere.send()
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
        self._elsewhere.close()
        for watcher in self._watchers:
            watcher.close()
