"""What a hub does by the clock, each duty in a thread of its own (a greenlet under gevent).

Readiness is judged by the canary. So it must not wait for a disk, as trimming does, nor for what a report reads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..events.names import CANARY_CHANNEL, STATS_CHANNEL
from ..events.wire import heartbeat_block
from ..runtime.failures import repeat
from .control import Control
from .deliveries import Deliveries
from .ends import CHECK_INTERVAL
from .group import Groups
from .listeners import INTERVAL, Counting
from .retention import TRIM_INTERVAL, Retention
from .window import Window

logger = logging.getLogger("headwater.hub")

CANARY_INTERVAL = 1.0  # seconds between two canary heartbeats; /readyz tolerates five
FIRST_CANARY = 0.05  # seconds between looks for the canary's first stream, which a start waits for
REPORT_INTERVAL = 1.0  # seconds between two reports to the console


class Injector(Protocol):
    """The hub, as its duties see it."""

    window: Window
    groups: Groups
    control: Control
    counting: Counting
    deliveries: Deliveries
    retention: Retention

    def inject(self, channel: str, wire: bytes) -> None: ...

    def stop_if_abandoned(self) -> None: ...


class Duties:
    """Each method that is a duty does one turn and returns the seconds until the next one.

    report: makes the block for the channel ``_stats``.
    """

    def __init__(self, hub: Injector, report: Callable[[], bytes] | None) -> None:
        self._hub = hub
        self._report = report

    def threads(self, stop: threading.Event) -> list[threading.Thread]:
        """Return the threads, not started yet; they end when ``stop`` is set."""
        duties = (
            ("canary", self._send_canary, FIRST_CANARY),
            ("report", self._send_report, REPORT_INTERVAL),
            ("trimming", self._hub.retention.trim, TRIM_INTERVAL),
            ("ends", self._hub.control.check_ends, CHECK_INTERVAL),
            ("listeners", self._hub.counting.put, INTERVAL),
        )
        return [
            threading.Thread(
                target=partial(repeat, name, duty, stop, logger, first=first), name=f"sse-{name}", daemon=True
            )
            for name, duty, first in duties
        ]

    def _send_canary(self) -> float:
        hub = self._hub
        if not hub.groups.of(CANARY_CHANNEL):
            return FIRST_CANARY
        hub.inject(CANARY_CHANNEL, heartbeat_block(hub.window.position, time.time_ns() // 1_000_000))
        return CANARY_INTERVAL

    def _send_report(self) -> float:
        self._hub.stop_if_abandoned()
        self._hub.deliveries.flush()
        if self._report is not None and self._hub.groups.of(STATS_CHANNEL):
            self._hub.inject(STATS_CHANNEL, self._report())
        return REPORT_INTERVAL
