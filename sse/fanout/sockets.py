"""The sockets that were taken over: which stream has which descriptor, and how a stream lets go of its own."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from time import monotonic

from ..runtime.cooperation import Failures
from ..settings import Settings
from ..streams.hub import Hub
from ..streams.stream import OWN_CLIENT, Backlog, CloseReason, State, Stream
from . import epoll as transport

logger = logging.getLogger("headwater.fanout")


class Sockets:
    """One worker's table. Everything that uses it runs in one event loop and waits only for that loop.

    streams     by descriptor; its order is that of a sweep
    backlogged  those that are not live: they have something to be sent first, or an end before them
    count, own  how many; of these, the worker's own canaries, which end with the worker
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.settings = hub.settings
        self.stats = hub.stats
        self.poller = transport.Poller()
        self.streams: list[Stream | None] = []
        self.backlogged: set[Stream] = set()
        self.count = 0
        self.own = 0
        self.failures = Failures(logger)
        self.settings.on_change(self._prepare)

    def counts(self) -> Counter[str]:
        """How many clients' sockets are in which state."""
        return Counter(stream.state for stream in self.clients())

    def clients(self) -> list[Stream]:
        """All streams but the worker's own."""
        return [stream for stream in self.streams if stream is not None and stream.client != OWN_CLIENT]

    def _prepare(self, new: Settings) -> Callable[[], None]:
        """For new settings: the kernel has been told how long it may keep bytes."""
        changed = new.sse_write_timeout != self.settings.sse_write_timeout

        def change() -> None:
            for stream in self.clients() if changed else ():
                transport.set_user_timeout(stream.fd, new.sse_write_timeout * transport.USER_TIMEOUT_FACTOR)

        return change

    def add(self, stream: Stream, fd: int) -> None:
        """Own this descriptor from now on. Raises OSError (the kernel watches no more of them); owns nothing then."""
        transport.prepare(fd, self.settings.sse_write_timeout * transport.USER_TIMEOUT_FACTOR)
        self.poller.add(fd)
        stream.fd = fd
        if fd >= len(self.streams):
            self.streams.extend([None] * (fd + 64 - len(self.streams)))
        self.streams[fd] = stream
        self.count += 1
        self.own += stream.client == OWN_CLIENT

    def leave_live(self, stream: Stream, cursor: int, state: State, rest: memoryview | bytes = b"") -> None:
        """A live stream lags, or is to end: what it is owed comes one by one from here on."""
        stream.group.remove_live(stream)
        stream.become(state)
        stream.cursor = cursor
        stream.backlog = Backlog(monotonic(), rest)
        self.backlogged.add(stream)

    def close(self, stream: Stream, reason: CloseReason) -> None:
        """Let go of a stream's descriptor, now. Idempotent."""
        if stream.state is State.CLOSED:
            return
        if stream.state is State.LIVE:
            stream.group.remove_live(stream)
        elif stream.backlog is not None and stream.backlog.final and not stream.backlog.rest:
            reason = stream.backlog.end or reason
        stream.become(State.CLOSED)
        stream.backlog = None
        self.backlogged.discard(stream)
        fd, stream.fd = stream.fd, -1
        self.streams[fd] = None
        self.count -= 1
        self.own -= stream.client == OWN_CLIENT
        os.close(fd)  # leaves the epoll set by itself
        self.hub.closed(stream, reason)

    def fail(self, stream: Stream) -> None:
        """Close a stream after an exception that nobody expected, which is being handled. What it was sent is not
        known, so it is cut where it is, and resumes."""
        self.failures.report("what was done for a stream failed; it is cut")
        try:
            self.close(stream, CloseReason.ERROR)
        except Exception:
            self.failures.report("a stream's end was not accounted for")


def reason_of(error: OSError) -> CloseReason:
    """The close reason that an error of a socket stands for."""
    return CloseReason.CLIENT if isinstance(error, BrokenPipeError) else CloseReason.RESET
