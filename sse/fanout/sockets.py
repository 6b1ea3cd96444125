"""The table of sockets that were taken over: which stream owns which descriptor, and how it gives the descriptor up."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection
from time import monotonic

from ..runtime.failures import Failures
from ..settings import Settings
from ..streams.group import Group
from ..streams.hub import Hub
from ..streams.stream import OWN_CLIENT, Backlog, CloseReason, State, Stream
from . import epoll

logger = logging.getLogger("headwater.fanout")


class Sockets:
    """One hub's table. Everything that uses it runs in one event loop and waits only for that loop.

    streams     by descriptor; None where a descriptor is not ours
    backlogged  streams that are not live: each has a backlog
    count       number of streams
    own         how many of them are the worker's own (canaries), which end with the worker
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.settings = hub.settings
        self.stats = hub.stats
        self.poller = epoll.Poller()
        self.streams: list[Stream | None] = []
        self.backlogged: set[Stream] = set()
        self.count = 0
        self.own = 0
        self.failures = Failures(logger)
        self.settings.on_change(self._prepare)

    def counts(self) -> Counter[str]:
        """Return the number of clients' streams by state."""
        return Counter(stream.state for stream in self.clients())

    def clients(self) -> list[Stream]:
        """Return all streams except the worker's own."""
        return [stream for stream in self.streams if stream is not None and stream.client != OWN_CLIENT]

    def _prepare(self, new: Settings) -> Callable[[], None]:
        """For new settings: the kernel has its own copy of the write time-out for each open socket."""
        changed = new.sse_write_timeout != self.settings.sse_write_timeout

        def change() -> None:
            for stream in self.clients() if changed else ():
                epoll.set_user_timeout(stream.fd, new.sse_write_timeout * epoll.USER_TIMEOUT_FACTOR)

        return change

    def add(self, stream: Stream, fd: int) -> None:
        """Own this descriptor from now on. Raises OSError if the kernel cannot watch one more; the caller then still
        owns it."""
        epoll.prepare(fd, self.settings.sse_write_timeout * epoll.USER_TIMEOUT_FACTOR)
        self.poller.add(fd)
        stream.fd = fd
        if fd >= len(self.streams):
            self.streams.extend([None] * (fd + 64 - len(self.streams)))
        self.streams[fd] = stream
        self.count += 1
        self.own += stream.client == OWN_CLIENT

    def leave_live(self, stream: Stream, cursor: int, state: State, rest: memoryview | bytes = b"") -> None:
        """Take a stream out of its group's live list, with a backlog: ``cursor`` is the position through which it has
        been served, counting the unsent ``rest`` of a chunk."""
        stream.group.remove_live(stream)
        stream.become(state)
        stream.cursor = cursor
        stream.backlog = Backlog(monotonic(), rest)
        self.backlogged.add(stream)

    def lag(self, stream: Stream, cursor: int, rest: memoryview | bytes = b"") -> None:
        """Make a live stream lag, because its socket is full; arguments as for :meth:`leave_live`."""
        self.leave_live(stream, cursor, State.LAGGING, rest)
        self.poller.want_write(stream.fd)

    def close(self, stream: Stream, reason: CloseReason) -> None:
        """Close a stream's descriptor now. Idempotent."""
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
        os.close(fd)  # which also removes it from the epoll set
        self.hub.closed(stream, reason)

    def drop_rests(self, groups: Collection[Group]) -> None:
        """Close the streams of these groups that have an unsent rest: it may have events that were erased. They resume,
        and are sent what is left."""
        for stream in list(self.backlogged):
            backlog = stream.backlog
            if backlog is not None and backlog.rest and not backlog.final and stream.group in groups:
                self.close(stream, CloseReason.ERASED)

    def fail(self, stream: Stream) -> None:
        """Cut a stream because of a bug: the exception that is being handled. What its client was sent is unknown, so
        the client has to resume."""
        self.failures.report("serving a stream failed; it is cut and resumes")
        try:
            self.close(stream, CloseReason.ERROR)
        except Exception:
            self.failures.report("a stream's end could not be recorded")


def reason_of(error: OSError) -> CloseReason:
    """Return the close reason for an error on a socket."""
    return CloseReason.CLIENT if isinstance(error, BrokenPipeError) else CloseReason.RESET
