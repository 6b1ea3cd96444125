"""Counting durations."""

from __future__ import annotations

from sse.event import make_position
from sse.stats import Histogram


def test_the_ages_of_events_are_observed_by_their_milliseconds() -> None:
    histogram = Histogram((0.01, 0.1, 1.0))
    histogram.observe_ages([], 100.0)
    assert sum(histogram.counts) == 0
    histogram.observe_ages([make_position(99_500), make_position(99_995, 0), make_position(99_995, 1)], 100.0)
    assert histogram.counts == [2, 0, 1, 0]
    assert abs(histogram.total - 0.51) < 1e-6
