"""Retention, bite by bite, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sse.log import Log, LogUnavailable
from sse.log.base import TRIM_BITE
from sse.settings import Settings
from sse.streams.retention import BITE_PAUSE, RETENTION_DELAY, TRIM_INTERVAL, Retention

DAY = 86_400.0


class FakeLog:
    """A log that trims by what it is told."""

    def __init__(self) -> None:
        self.bites: Iterator[int] = iter(())
        self.kept: list[tuple[int, float]] = []
        self.down = False

    def trim(self) -> int:
        if self.down:
            raise LogUnavailable("told to be down")
        return next(self.bites, 0)

    def retain(self, events: int, seconds: float) -> None:
        self.kept.append((events, seconds))


class Site:
    """Retention over a log that is none. ``now``: seconds."""

    def __init__(self) -> None:
        self.log: Any = FakeLog()
        self.now = 1000.0
        self.settings = Settings.from_mapping({"SSE_RETAIN_EVENTS": 100})
        log: Log = self.log
        self.retention = Retention(log, self.settings, clock=lambda: self.now)

    def change(self, events: int) -> None:
        self.settings.become(Settings.from_mapping({"SSE_RETAIN_EVENTS": events}))()
        self.retention.bite()  # it has its turn in the second after

    def after(self, seconds: float) -> list[tuple[int, float]]:
        """What the log was told to keep, once so much time has passed."""
        self.now += seconds
        self.retention.bite()
        return list(self.log.kept)


def test_a_bite_that_is_not_full_is_the_last_for_a_while_however_much_is_published() -> None:
    site = Site()
    site.log.bites = iter([TRIM_BITE, TRIM_BITE, TRIM_BITE - 1, 1, 1])
    pauses = [site.retention.bite() for _ in range(6)]
    assert pauses == [BITE_PAUSE, BITE_PAUSE] + [TRIM_INTERVAL] * 4


def test_a_log_that_cannot_be_trimmed_now_is_tried_again_later() -> None:
    site = Site()
    site.log.down = True
    assert site.retention.bite() == TRIM_INTERVAL


@pytest.mark.parametrize("events", [pytest.param(10, id="lowered"), pytest.param(1000, id="raised")])
def test_a_change_counts_when_all_workers_have_had_the_time_to_know_it(events: int) -> None:
    site = Site()
    site.change(events)
    assert site.after(RETENTION_DELAY - 0.1) == []
    assert site.retention.least() == (min(events, 100), DAY), "whichever is less may be trimmed by"
    assert site.after(0.1) == [(events, DAY)]
    assert site.retention.least() == (events, DAY)
    assert site.after(10 * RETENTION_DELAY) == [(events, DAY)], "once"


def test_a_second_change_is_waited_for_as_long_as_the_first() -> None:
    site = Site()
    site.change(10)
    site.now += RETENTION_DELAY - 0.5
    site.change(5)
    assert site.after(RETENTION_DELAY - 0.1) == [], "neither the first, which is no more wanted, nor the second"
    assert site.after(0.1) == [(5, DAY)]


def test_a_change_that_was_taken_back_is_forgotten() -> None:
    site = Site()
    site.change(10)
    site.now += RETENTION_DELAY - 0.5
    site.change(100)
    assert site.after(2 * RETENTION_DELAY) == []
    site.change(10)
    assert site.after(RETENTION_DELAY - 0.1) == [], "and does not count for the next one"
