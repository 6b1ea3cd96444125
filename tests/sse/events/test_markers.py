"""The service's own records: what they say, and that nobody else can publish their types."""

from __future__ import annotations

import json

import pytest

from sse.events.markers import MARKERS, end_marker, erased_marker, is_marker, own_event
from sse.events.model import CONTROL_EVENTS, Event, InvalidEvent, Record, parse_id
from sse.events.wire import encode_frame


def test_the_end_of_a_channel_names_it() -> None:
    marker = end_marker("orders")
    assert (marker.channel, marker.event, marker.retry) == ("orders", "stream-end", None)
    assert marker.data == '{"channel":"orders"}'


def test_an_erased_channel_is_a_reset_at_the_markers_own_position() -> None:
    marker = erased_marker("orders", parse_id("1763900000000-7"))
    assert (marker.channel, marker.event) == ("orders", "stream-reset")
    assert json.loads(marker.data) == {
        "reason": "erased",
        "channel": "orders",
        "requested": "",
        "oldest": None,
        "latest": "1763900000000-7",
    }


def test_a_marker_is_encoded_like_any_other_record() -> None:
    position = parse_id("1-0")
    marker = end_marker("a")
    wire = encode_frame(Record(position, marker.channel, marker.event, marker.retry, marker.data)).wire
    assert wire == b'id: 1-0\nevent: stream-end\ndata: {"channel":"a"}\n\n'


@pytest.mark.parametrize("event", sorted(CONTROL_EVENTS))
def test_a_publisher_cannot_use_our_types(event: str) -> None:
    with pytest.raises(InvalidEvent, match="reserved"):
        Event("orders", "x", event)
    assert is_marker(event) == (event != "heartbeat")
    assert own_event("_control", event, "x").event == event


def test_only_our_types_are_markers() -> None:
    assert MARKERS == {"stream-reset", "stream-end", "run"}
    assert not is_marker(None) and not is_marker("created")
