"""Retention, step by step, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sse.log import Log, LogUnavailable, RetainRule
from sse.log.base import RULE_GRACE, TRIM_BITE
from sse.settings import Settings
from sse.streams.retention import RETENTION_DELAY, TRIM_INTERVAL, TRIM_PAUSE, Retention

DAY = 86_400.0


class FakeLog:
    """A log that only counts how it is trimmed."""

    def __init__(self) -> None:
        self.steps: Iterator[int] = iter(())
        self.kept: list[tuple[int, float]] = []
        self.rules: list[RetainRule] = []
        self.down = False

    def trim(self) -> int:
        if self.down:
            raise LogUnavailable("told to be down")
        return next(self.steps, 0)

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule]) -> None:
        self.kept.append((events, seconds))
        self.rules = list(rules)


class Site:
    """Retention over that log. ``now``: seconds."""

    def __init__(self) -> None:
        self.log: Any = FakeLog()
        self.now = 1000.0
        self.settings = Settings.from_mapping({"SSE_RETAIN_EVENTS": 100})
        log: Log = self.log
        self.retention = Retention(log, self.settings, clock=lambda: self.now)
        assert self.log.kept.pop() == (100, DAY), "at once, before anything is trimmed"

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


def test_rules_apply_at_once_and_their_change_after_the_delay() -> None:
    log: Any = FakeLog()
    settings = Settings.from_mapping({"SSE_RETAIN": "audit:*=30d"})
    now = [0.0]
    retention = Retention(log, settings, clock=lambda: now[0])
    assert log.rules == [RetainRule("audit:*", None, 30 * DAY)]
    settings.become(Settings.from_mapping({"SSE_RETAIN": "audit:*=1h,orders=5"}))()
    retention.trim()
    assert log.rules == [RetainRule("audit:*", None, 30 * DAY)]
    now[0] += RETENTION_DELAY
    retention.trim()
    assert log.rules == [RetainRule("audit:*", None, 3600.0), RetainRule("orders", 5, None)]


@pytest.mark.parametrize(
    ("rules", "seconds"),
    [
        ("audit:*=30d", DAY),
        ("a=2s,b=60s", 2),
        ("a=5", RULE_GRACE * 1.5),
        ("a=5/1h,b=2h", RULE_GRACE * 1.5),
        ("a=5/2s", 2),
        ("", DAY),
    ],
)
def test_a_worker_looks_for_gaps_by_the_shortest_rule(rules: str, seconds: float) -> None:
    settings = Settings.from_mapping({"SSE_RETAIN": rules})
    log: Any = FakeLog()
    retention = Retention(log, settings)
    assert retention.least() == (100_000, seconds)
    settings.become(Settings.from_mapping({"SSE_RETAIN": ""}))()
    assert retention.least() == (100_000, seconds), "until the log trims without them"
