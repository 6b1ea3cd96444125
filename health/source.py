"""What health may know of the service that it watches: the one narrow interface between the two packages.

``app.extensions["sse"]`` offers it; in a test any plain object does. Health imports nothing from ``sse``, and
``sse`` never imports health.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Protocol


class Status(Protocol):
    """How a worker's hub is doing, as plain numbers: asking costs neither the log nor the network
    anything."""

    @property
    def started(self) -> bool:
        """The log is open and the tailer has caught up with it once."""

    @property
    def draining(self) -> bool:
        """This worker was told to end (SIGTERM)."""

    @property
    def tail_age(self) -> float:
        """Seconds since the log last answered the tailer."""

    @property
    def position(self) -> int:
        """The position through which this worker has read the log."""

    @property
    def streams(self) -> Mapping[str, int]:
        """How many streams there are, by state."""

    @property
    def hub_alive(self) -> bool:
        """The hub's own threads run."""

    @property
    def append_failed_at(self) -> float:
        """When the log last refused an append, monotonic seconds; 0.0 if it never did or has taken one since."""


class LogUsage(Protocol):
    """How much the log takes, in bytes; None where that cannot be known."""

    @property
    def bytes(self) -> int | None: ...
    @property
    def free(self) -> int | None:
        """How much more there is room for."""

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event that is held was appended, unix seconds."""


class Source(Protocol):
    """The service, seen from health.

    It may also have an attribute ``stats`` with the counters that :mod:`health.metrics.exporter` exports, and a method
    ``log_usage`` that returns a :class:`LogUsage` or None, and may wait for the log.
    """

    def status(self) -> Status:
        """How this worker's hub is doing now; must not block."""

    def attach(self, sock: socket.socket, channel: str = "_canary") -> None:
        """Take one end of a socket pair as a real stream, raw (not chunked). The source owns it from here on.

        :raises RuntimeError: when this worker takes no sockets over; then :meth:`open` is used.
        """

    def open(self, channel: str = "_canary") -> Iterator[bytes]:
        """The same stream through the generator path."""
