"""Which streams a worker admits: it counts them, all together and by client."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from ..settings import Settings
from .stats import Stats


class Admission:
    """One worker's count of streams. Every stream that is admitted must be released.

    site_of: returns the site of a client's address. While SSE_MAX_STREAMS_PER_IP is set, streams are counted by site.
    """

    def __init__(self, settings: Settings, stats: Stats, site_of: Callable[[str], str]) -> None:
        self.streams = 0
        self.polls = 0  # of these, long polls
        self.draining = False
        self._settings = settings
        self._stats = stats
        self._site_of = site_of
        self._per_client: Counter[str] = Counter()
        self._pull_limit: int | None = None
        self._lock = threading.Lock()
        settings.on_change(self._prepare)

    def limit_pulling(self, streams: int) -> None:
        """Admit at most so many streams, because each holds a thread of the server."""
        self._pull_limit = streams

    def drain(self) -> None:
        """Admit nobody any more."""
        self.draining = True

    def admit(self, client: str, *, count: bool = True) -> str | None:
        """Count one more stream (``count=False``: only ask) and return None; or return why it is refused."""
        with self._lock:
            if self.draining:
                reason = "drain"
            elif self.streams >= self._settings.sse_max_streams:
                reason = "streams"
            elif self._pull_limit is not None and self.streams >= self._pull_limit:
                reason = "threads"
            elif 0 < self._settings.sse_max_streams_per_ip <= self._per_client[client]:
                reason = "streams-per-ip"
            else:
                if count:
                    self.streams += 1
                    self._per_client[client] += 1
                return None
        self._stats.refused[reason] += 1
        return reason

    def admit_poll(self, client: str) -> str | None:
        """Count a long poll as one more stream and return None; or return why it is refused.

        Threat: a poll holds a connection that is none of a stream, of which there are WORKER_CONNECTIONS. So at most
        half of these wait, and publishers find room.
        """
        if self.polls >= max(1, self._settings.worker_connections // 2):
            self._stats.refused["streams"] += 1
            return "streams"
        refused = self.admit(client)
        if refused is None:
            with self._lock:
                self.polls += 1
        return refused

    def release_poll(self, client: str) -> None:
        """Count one long poll less."""
        with self._lock:
            self.polls -= 1
        self.release(client)

    def release(self, client: str) -> None:
        """Count one stream less."""
        with self._lock:
            self.streams -= 1
            if client not in self._per_client:
                client = self._site_of(client)  # it was counted again by site since it opened
            self._per_client[client] -= 1
            if self._per_client[client] <= 0:
                del self._per_client[client]

    def _prepare(self, new: Settings) -> Callable[[], None]:
        """Prepare for new settings (:mod:`sse.settings.live`)."""
        limited = bool(new.sse_max_streams_per_ip) and not self._settings.sse_max_streams_per_ip

        def change() -> None:
            with self._lock:
                if limited:
                    by_site: Counter[str] = Counter()
                    for client, count in self._per_client.items():
                        by_site[self._site_of(client)] += count
                    self._per_client = by_site

        return change
