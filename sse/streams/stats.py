"""What a worker counts: plain numbers, so that counting costs the fan-out next to nothing.

Health reads them once a second for Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from ..events.model import SEQUENCE_BITS

# Seconds, over the range that was measured: a lone stream is served in 0.1 ms, a pass over thousands takes 5-20 ms, and
# catching up takes seconds.
DELIVERY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RUN_BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
PASS_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Histogram:
    """Counts per bucket. bounds: inclusive upper bounds in seconds; one more bucket counts what lies above."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def observe_ages(self, positions: Iterable[int], now: float) -> None:
        """Observe how old events are at ``now``, unix seconds, all those of one millisecond in one step.

        positions: the events', in order.
        """
        ms, times = 0, 0
        for position in positions:
            if position >> SEQUENCE_BITS != ms:
                if times:
                    self.observe(now - ms / 1000, times)
                ms, times = position >> SEQUENCE_BITS, 0
            times += 1
        if times:
            self.observe(now - ms / 1000, times)

    def quantile(self, share: float, since: list[int]) -> float | None:
        """Return the upper bound of the bucket in which this share of what was observed lies, or None if nothing was.

        since: the counts from which on to look.
        """
        new = [now - before for now, before in zip(self.counts, since, strict=True)]
        wanted = sum(new) * share
        if not wanted:
            return None
        reached = 0
        for bound, count in zip((*self.bounds, self.bounds[-1] * 2), new, strict=True):
            reached += count
            if reached >= wanted:
                return bound
        return None


class Stats:
    """One worker's counters since it started."""

    __slots__ = (
        "append_failed_at",
        "bytes_sent",
        "closed",
        "connections_closed",
        "delivered",
        "delivery",
        "gzip_sent",
        "gzip_text",
        "opened",
        "passes",
        "published",
        "publishes_refused",
        "refused",
        "replayed",
        "resets",
        "run_items",
        "run_seconds",
        "runs",
        "runs_ended",
        "settings_refused",
    )

    def __init__(self) -> None:
        self.opened = 0
        self.published = 0
        self.publishes_refused: Counter[str] = Counter()
        self.append_failed_at = 0.0  # when the log last refused an append, monotonic seconds; 0.0 if it took the newest
        self.delivered = 0
        self.replayed = 0
        self.bytes_sent = 0
        self.gzip_text = 0  # bytes of text that was sent compressed, and of what it became
        self.gzip_sent = 0
        self.settings_refused = 0  # 1 while the settings file cannot be used
        self.closed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()
        self.connections_closed: Counter[str] = Counter()
        self.delivery = Histogram(DELIVERY_BOUNDS)
        self.passes = Histogram(PASS_BOUNDS)
        self.runs: Counter[str] = Counter()  # that have not ended, by state
        self.runs_ended: Counter[str] = Counter()
        self.run_items = 0
        self.run_seconds = Histogram(RUN_BOUNDS)
