"""The interface between health and the service that it watches, ``app.extensions["sse"]``.

It is the only one: ``health`` and ``sse`` never import each other.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Protocol


class Status(Protocol):
    """The state of a worker's hub. Reading it waits for neither the log nor the network."""

    @property
    def started(self) -> bool:
        """The log is open and the tailer has caught up with it once."""

    @property
    def draining(self) -> bool:
        """This worker has been told to end (SIGTERM)."""

    @property
    def tail_age(self) -> float:
        """Seconds since the log last answered the tailer."""

    @property
    def position(self) -> int:
        """The position through which this worker has read the log."""

    @property
    def streams(self) -> Mapping[str, int]:
        """Number of streams by state."""

    @property
    def hub_alive(self) -> bool:
        """All threads of the hub run."""

    @property
    def runs(self) -> int:
        """Number of runs that have not ended. A draining worker waits for them."""

    @property
    def append_failed_at(self) -> float:
        """When the log last refused an append, monotonic seconds; 0.0 if never, or if an append succeeded since."""


class LogUsage(Protocol):
    """The log's size, in bytes; None if unknown."""

    @property
    def bytes(self) -> int | None: ...
    @property
    def free(self) -> int | None:
        """Bytes that the log may still grow by."""

    @property
    def oldest_at(self) -> float | None:
        """When the oldest stored event was appended, unix seconds."""


class Source(Protocol):
    """The service.

    It may also have an attribute ``stats`` with the counters of ``health.metrics.table``; its ``version``; a method
    ``log_usage``, which returns a ``LogUsage`` or None and may wait for the log; and a method ``connection_counts``.
    """

    def status(self) -> Status:
        """Return the hub's present state. Must not block."""

    def attach(self, sock: socket.socket, channel: str = "_canary") -> None:
        """Take over one end of a socket pair as a real stream, without chunked coding. The source then owns it.

        Raises RuntimeError if this worker does not take sockets over; the caller then uses ``open``.
        """

    def open(self, channel: str = "_canary") -> Iterator[bytes]:
        """Open the same stream as a generator."""
