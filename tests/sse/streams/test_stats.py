"""Counting durations."""

from __future__ import annotations

import pytest

from sse.events.model import make_position
from sse.streams.stats import Histogram


def test_event_ages_are_observed_millisecond_by_millisecond() -> None:
    histogram = Histogram((0.01, 0.1, 1.0))
    histogram.observe_ages([], 100.0)
    assert sum(histogram.counts) == 0
    histogram.observe_ages([make_position(99_500), make_position(99_995, 0), make_position(99_995, 1)], 100.0)
    assert histogram.counts == [2, 0, 1, 0]
    assert abs(histogram.total - 0.51) < 1e-6


def test_a_bucket_includes_its_upper_bound_and_the_last_one_has_no_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.100001, 1.0, 1.000001, 50.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    histogram.observe(0.5, 10)
    assert histogram.counts == [2, 12, 2]
    assert abs(histogram.total - (0.0 + 0.1 + 0.100001 + 1.0 + 1.000001 + 50.0 + 5.0)) < 1e-9


@pytest.mark.parametrize(
    ("new", "share", "bound"),
    [
        pytest.param([0, 0, 0], 0.99, None, id="nothing"),
        pytest.param([99, 1, 0], 0.99, 0.1, id="exactly so many"),
        pytest.param([98, 2, 0], 0.99, 1.0, id="one too few"),
        pytest.param([0, 0, 5], 0.5, 2.0, id="above all bounds: twice the last one"),
        pytest.param([1, 0, 0], 0.99, 0.1, id="a single one"),
    ],
)
def test_a_quantile_is_the_bound_below_which_that_share_of_the_new_values_lies(
    new: list[int], share: float, bound: float | None
) -> None:
    histogram = Histogram((0.1, 1.0))
    histogram.counts = [7, 1000, 3]
    since = list(histogram.counts)
    histogram.counts = [before + more for before, more in zip(since, new, strict=True)]
    assert histogram.quantile(share, since) == bound
