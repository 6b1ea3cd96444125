"""The log lines of traced deliveries: one for each trace and pass, within limits."""

from __future__ import annotations

import logging

import pytest

from sse.events.model import make_position
from sse.events.trace import Trace
from sse.events.wire import Frame
from sse.runtime.lines import Line
from sse.streams.deliveries import MOST_TRACES, Delivered, Deliveries
from sse.streams.group import Group, Subscription

BEGIN = make_position(1_700_000_000_000)
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def frames(channels: str, first: int = 0) -> list[Frame]:
    return [Frame(BEGIN + first + n, channel, None, b"x") for n, channel in enumerate(channels)]


def group(channels: str, types: frozenset[str] | None = None) -> Group:
    return Group(Subscription(frozenset(channels), types), 0.0)


def trace(first: int, last: int) -> Trace:
    return Trace(BEGIN + first, BEGIN + last, PARENT)


def give(deliveries: Deliveries, found: list[Frame], *groups: Group) -> None:
    """Give these frames to the groups, as the hub does."""
    by_channel: dict[str, list[Group]] = {}
    for one in groups:
        one.pending += [frame for frame in found if frame.channel in one.subscription.channels]
        for channel in one.subscription.channels:
            by_channel.setdefault(channel, []).append(one)
    deliveries.mark(found, lambda channel: by_channel.get(channel, ()))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[Line]:
    caplog.set_level(logging.INFO, "headwater.delivery")

    class Lines(list[Line]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter([record.msg for record in caplog.records])

    return Lines()


def written(deliveries: Deliveries, one: Group, streams: int = 3) -> None:
    found, one.pending = one.pending, []
    deliveries.written(one, found, streams, 0.25, 1_700_000_000.5)


def test_a_line_names_trace_event_channel_streams_and_latency(lines: list[Line]) -> None:
    deliveries, one = Deliveries(lambda: 10), group("a")
    deliveries.took([trace(1, 1)])
    give(deliveries, frames("aaa"), one)
    written(deliveries, one, 7)
    (line,) = lines
    assert line.kind == "delivery"
    assert line.fields == {
        "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
        "id": "1700000000000-1",
        "events": 1,
        "channels": "a",
        "streams": 7,
        "latency": 0.5,
    }
    assert one.traced == deliveries.reading == []


def test_a_traced_batch_has_one_line_for_each_pass_over_a_group_with_its_events(lines: list[Line]) -> None:
    deliveries, both, other, none = Deliveries(lambda: 10), group("ab"), group("b"), group("c")
    deliveries.took([trace(0, 5)])
    give(deliveries, frames("aab"), both, other, none)
    for one in (both, other):
        written(deliveries, one)
    give(
        deliveries, frames("abac", 3), both, other, none
    )  # the log's next page; its last event is not of the traced batch
    for one in (both, other, none):
        written(deliveries, one)
    assert [(line.fields["channels"], line.fields["events"]) for line in lines] == [
        ("a,b", 3),
        ("b", 1),
        ("a,b", 3),
        ("b", 1),
    ]
    give(deliveries, frames("ab", 7), both, other)
    written(deliveries, both)
    assert deliveries.reading == both.traced == []
    assert len(list(lines)) == 4


def test_a_pass_that_writes_part_of_a_trace_leaves_it_for_the_next_pass(lines: list[Line]) -> None:
    deliveries, one = Deliveries(lambda: 10), group("a")
    deliveries.took([trace(0, 3)])
    give(deliveries, frames("aaaa"), one)
    deliveries.written(one, one.pending[:3], 1, 0.0, 1_700_000_000.5)
    deliveries.written(one, one.pending[3:], 1, 0.0, 1_700_000_000.5)
    assert [line.fields["events"] for line in lines] == [3, 1]


def test_an_event_that_no_stream_got_has_no_line(lines: list[Line]) -> None:
    deliveries, one, types = Deliveries(lambda: 10), group("a"), group("a", frozenset({"other"}))
    deliveries.took([trace(0, 0)])
    deliveries.mark(frames("a"), lambda channel: [types, group("a")])  # nothing pending, nobody waits
    deliveries.took([trace(0, 0)])
    give(deliveries, frames("a"), one)
    assert one.traced
    written(deliveries, one, 0)
    assert one.traced == types.traced == list(lines) == []


def test_a_flood_of_sampled_events_writes_up_to_the_limit_and_counts_the_rest(
    lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    deliveries, one = Deliveries(lambda: 5), group("a")
    for n in range(50):
        deliveries.took([trace(n, n)])
        give(deliveries, frames("a", n), one)
        written(deliveries, one)
    deliveries.flush()
    assert len(list(lines)) == 5
    now += 1.0
    deliveries.flush()
    assert [line.fields for line in list(lines)[5:]] == [{"suppressed": 45}]
    deliveries.took([trace(50, 50)])
    give(deliveries, frames("a", 50), one)
    written(deliveries, one)
    now += 1.0
    deliveries.flush()
    assert [line.kind for line in lines] == ["delivery"] * 5 + ["deliveries", "delivery"], (
        "a new second has lines again"
    )


def test_the_number_of_traces_kept_is_bounded(lines: list[Line]) -> None:
    deliveries, one = Deliveries(lambda: 5), group("a")
    for n in range(0, 20 * MOST_TRACES, 2):
        deliveries.took([trace(n, n + 1)])
        give(deliveries, frames("a", n), one)  # each trace has another event that is not read yet
        assert len(one.traced) <= MOST_TRACES
    deliveries.took([trace(10**6 + n, 10**6 + n) for n in range(3 * MOST_TRACES)])
    assert len(deliveries.reading) == MOST_TRACES


def test_without_lines_traces_are_kept_only_for_a_listener(lines: list[Line]) -> None:
    deliveries, one = Deliveries(lambda: 0), group("a")
    deliveries.took([trace(0, 0)])
    assert deliveries.reading == []
    told: list[Delivered] = []
    deliveries = Deliveries(lambda: 0, told.append)
    deliveries.took([trace(0, 0)])
    give(deliveries, frames("a"), one)
    written(deliveries, one)
    assert [(one.trace, one.streams, one.channels, one.began) for one in told] == [
        (trace(0, 0), 3, "a", 1_700_000_000.25)
    ]
    assert list(lines) == []


def test_a_listener_that_fails_is_logged_and_harms_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Delivered) -> None:
        raise ValueError("told to fail")

    deliveries, one = Deliveries(lambda: 1, fail), group("a")
    deliveries.took([trace(0, 0)])
    give(deliveries, frames("a"), one)
    written(deliveries, one)
    assert "told to fail" in caplog.text
