"""The console's statistics: one ``stats`` event a second for each worker, on the channel ``_stats``.

They are numbers without channel names or clients: a reader learns how busy the service is, but not with what.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from ..events.wire import encode_block
from ..streams.hub import Hub
from ..streams.stats import Stats


class Reporter:
    """Encodes one worker's ``stats`` events.

    stats: the worker's counters; engine: the scheme of the log's URL; more: returns further members for each event
    (health's: canary, loop lag, all workers), which win over the worker's own.
    """

    def __init__(self, stats: Stats, engine: str, more: Callable[[], dict[str, Any]] | None = None) -> None:
        self._stats = stats
        self._engine = engine
        self._delivery = list(stats.delivery.counts)  # as of the last event
        self._more = more

    def __call__(self, hub: Hub) -> bytes:
        """Encode the next event."""
        stats = self._stats
        status = hub.status()
        members: dict[str, Any] = {
            "at": time.time_ns() // 1_000_000,
            "pid": os.getpid(),
            "log": self._engine,
            "tail_age": round(status.tail_age, 3),
            "streams": status.streams,
            "opened": stats.opened,
            "published": stats.published,
            "delivered": stats.delivered,
            "bytes": stats.bytes_sent,
            "delivery_p99": stats.delivery.quantile(0.99, self._delivery),
        }
        self._delivery = list(stats.delivery.counts)
        if self._more is not None:
            members.update(self._more())
        return encode_block(json.dumps(members, separators=(",", ":")), event="stats")
