"""Retention, step by step, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sse.log import Log, LogUnavailable
from sse.log.base import TRIM_BITE
from sse.settings import Settings
from sse.streams.retention import RETENTION_DELAY, TRIM_INTERVAL, TRIM_PAUSE, Retention

DAY = 86_400.0


class FakeLog:
    """A log that only counts how it is trimmed."""

    def __init__(self) -> None:
        self.steps: Iterator[int] = iter(())
        self.kept: list[tuple[int, float]] = []
        self.down = False

    def trim(self) -> int:
        if self.down:
            raise LogUnavailable("told to be down")
        return next(self.steps, 0)

    def retain(self, events: int, seconds: float) -> None:
        self.kept.append((events, seconds))


class Site:
    """Retention over that log. ``now``: seconds."""

    def __init__(self) -> None:
        self.log: Any = FakeLog()
        self.now = 1000.0
        self.settings = Settings.from_mapping({"SSE_RETAIN_EVENTS": 100})
        log: Log = self.log
        self.retention = Retention(log, self.settings, clock=lambda: self.now)

    def change(self, events: int) -> None:
        self.settings.become(Settings.from_mapping({"SSE_RETAIN_EVENTS": events}))()
        self.retention.trim()  # its turn comes within the next second

    def after(self, seconds: float) -> list[tuple[int, float]]:
        """Return what the log was told to keep once so much time has passed."""
        self.now += seconds
        self.retention.trim()
        return list(self.log.kept)


def test_only_a_full_step_is_followed_by_another_at_once() -> None:
    site = Site()
    site.log.steps = iter([TRIM_BITE, TRIM_BITE, TRIM_BITE - 1, 1, 1])
    pauses = [site.retention.trim() for _ in range(6)]
    assert pauses == [TRIM_PAUSE, TRIM_PAUSE] + [TRIM_INTERVAL] * 4


def test_a_log_that_cannot_be_trimmed_is_tried_again_later() -> None:
    site = Site()
    site.log.down = True
    assert site.retention.trim() == TRIM_INTERVAL


@pytest.mark.parametrize("events", [pytest.param(10, id="lowered"), pytest.param(1000, id="raised")])
def test_a_change_counts_once_all_workers_have_had_time_to_know_it(events: int) -> None:
    site = Site()
    site.change(events)
    assert site.after(RETENTION_DELAY - 0.1) == []
    assert site.retention.least() == (min(events, 100), DAY), "whichever is less may be trimmed by"
    assert site.after(0.1) == [(events, DAY)]
    assert site.retention.least() == (events, DAY)
    assert site.after(10 * RETENTION_DELAY) == [(events, DAY)], "once"


def test_a_second_change_begins_the_delay_again() -> None:
    site = Site()
    site.change(10)
    site.now += RETENTION_DELAY - 0.5
    site.change(5)
    assert site.after(RETENTION_DELAY - 0.1) == [], "neither the first, which is no more wanted, nor the second"
    assert site.after(0.1) == [(5, DAY)]


def test_a_change_that_is_taken_back_never_counts() -> None:
    site = Site()
    site.change(10)
    site.now += RETENTION_DELAY - 0.5
    site.change(100)
    assert site.after(2 * RETENTION_DELAY) == []
    site.change(10)
    assert site.after(RETENTION_DELAY - 0.1) == [], "and does not count for the next one"
