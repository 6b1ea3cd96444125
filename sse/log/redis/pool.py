"""A few connections for short requests."""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import Final

import redis

from ..base import LogUnavailable
from .connector import CONNECT_TIMEOUT, Connector
from .errors import RETRY_AFTER
from .link import COMMAND_TIMEOUT, Link

# Requests wait for one of these rather than open their own: 8 at 1 ms a round trip are 8,000 appends/s.
POOL_SIZE: Final = 8


class Pool:
    """A few connections for short requests. Under gevent, each native thread has its own."""

    def __init__(self, connector: Connector, size: int = POOL_SIZE) -> None:
        self._connector = connector
        self._size = size
        self._pid = os.getpid()
        self._patched = _patched()
        self._shelves: dict[int, Shelf] = {}

    def lease(self, *, patience: float = CONNECT_TIMEOUT) -> Lease:
        """Lease a connection for a ``with``: an idle one, else a new one; waits ``COMMAND_TIMEOUT`` for a place.

        patience: seconds that connecting may take. Raises what ``Connector.connect`` does, and ``LogUnavailable``.
        """
        shelf = self._shelf()
        try:
            shelf.room.get(timeout=COMMAND_TIMEOUT)
        except queue.Empty:
            message = f"all {self._size} connections to Redis are busy"
            raise LogUnavailable(message, RETRY_AFTER, stored="no") from None
        try:
            return Lease(shelf, self._idle(shelf) or self._connector.connect(patience=patience))
        except BaseException:
            shelf.room.put(None)
            raise

    def clear(self) -> None:
        """Close idle connections: after a failover they lead to the wrong server."""
        links = self._shelf().links
        while links:
            links.pop().close()

    def _idle(self, shelf: Shelf) -> Link | None:
        while shelf.links:
            link = shelf.links.pop()  # the one used last: the others may age and be closed by the server
            if link.idle():
                return link
            link.close()
        return None

    def _shelf(self) -> Shelf:
        if os.getpid() != self._pid:
            # After a fork, open connections are the parent's: forget them; their descriptors close at exit.
            self._shelves, self._pid = {}, os.getpid()
        thread = threading.get_native_id() if self._patched else 0
        shelf = self._shelves.get(thread)
        if shelf is None:
            shelf = self._shelves.setdefault(thread, Shelf(self._size))
        return shelf


class Lease:
    """A pool's connection, for the length of a ``with``. (``contextlib`` would cost more than all the rest.)"""

    __slots__ = ("_link", "_shelf")

    def __init__(self, shelf: Shelf, link: Link) -> None:
        self._shelf = shelf
        self._link = link

    def __enter__(self) -> Link:
        return self._link

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        # After any other exception, such as a killed greenlet's, an answer may still be on its way.
        if kind is None or issubclass(kind, (redis.ResponseError, LogUnavailable)):
            self._shelf.links.append(self._link)
        else:
            self._link.close()
        self._shelf.room.put(None)


class Shelf:
    """Idle connections, and a queue with a token for each connection that may be in use."""

    __slots__ = ("links", "room")

    def __init__(self, size: int) -> None:
        self.links: list[Link] = []
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()  # a tenth of a semaphore's cost
        for _ in range(size):
            self.room.put(None)


def _patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))
