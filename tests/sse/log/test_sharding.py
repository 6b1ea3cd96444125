"""docs/sharding.md on paper only: its scheme keeps its promises in the model, and no part of it can be left out."""

from __future__ import annotations

import pytest

from tests.sse.log.sharding import Scheme, run

SEEDS = range(15)


def test_every_stream_gets_each_event_once_and_in_one_order() -> None:
    assert {wrong for seed in SEEDS for wrong in run(seed, Scheme())} == set()


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        pytest.param("watermark", "an event was lost", id="no watermark"),
        pytest.param("own_ids", "two events have one id", id="ids without the log's number"),
        pytest.param("durable", "an event was lost", id="ticks that a crash undoes"),
        pytest.param(
            "fence",
            "a channel's events were sent in another order than they were published in",
            id="a move without a fence",
        ),
    ],
)
def test_what_breaks_without_a_part_of_it(part: str, wrong: str) -> None:
    assert any(wrong in run(seed, Scheme().without(part)) for seed in SEEDS)
