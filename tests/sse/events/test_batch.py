"""Batches give exactly what `sse.events.model` and `sse.events.wire` give one by one."""

from __future__ import annotations

import dataclasses
import enum
from itertools import accumulate
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sse.events import batch as columns
from sse.events.batch import FEW, encode_frames, encode_wanted, format_ids, make_events
from sse.events.model import (
    MAX_RETRY_MS,
    MAX_SEQUENCE,
    MAX_TYPE_CHARS,
    Event,
    InvalidEvent,
    Record,
    format_id,
    make_position,
)
from sse.events.wire import Frame, encode_frame

P = make_position(1732345678901, 7)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([], id="one"),
        pytest.param([1, 1, 1], id="a run"),
        pytest.param([1, 2, 1], id="a gap"),
        pytest.param([2, -1, 2], id="out of order"),
        pytest.param([0, 1], id="one twice"),
        pytest.param([1 << 20, 1], id="two milliseconds"),
    ],
)
@pytest.mark.parametrize("first", [P, make_position(5, MAX_SEQUENCE - 1)])
def test_the_ids_of_a_batch_equal_those_made_one_by_one(first: int, steps: list[int]) -> None:
    positions = list(accumulate(steps, initial=first))
    assert format_ids(positions) == [format_id(position) for position in positions]
    assert format_ids([]) == []


class Kind(str, enum.Enum):  # noqa: UP042 -- a StrEnum formats itself as its value; this one, as "Kind.CREATED"
    CREATED = "created"


def made(make: Any) -> Any:
    try:
        return [(type(event), repr(event), event, hash(event)) for event in make()]
    except InvalidEvent as error:
        return str(error), error.field


channels: Any = st.sampled_from(["a", "orders:1"])
bad_channels: Any = st.sampled_from(["", "_a", "a\n", "a b", Kind.CREATED, 1, None, [], b"a"])
texts: Any = st.text(max_size=3) | st.sampled_from([Kind.CREATED, "\ud800", "\udc00", "\0\r\n"])
kinds: Any = st.none() | st.sampled_from(["e", "\u00fc", Kind.CREATED])
bad_kinds: Any = st.sampled_from(["", "a\n", "\0", "heartbeat", "\ud800", "x" * (MAX_TYPE_CHARS + 1), 1, [], b"e"])
retries: Any = st.sampled_from([None, 0, 1, MAX_RETRY_MS])
bad_retries: Any = st.sampled_from([-1, MAX_RETRY_MS + 1, True, False, 1.0, "1", []])


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_events_made_at_once_equal_those_made_one_by_one(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(channels, st.text(max_size=3), kinds, retries), min_size=1, max_size=4))
    odd = data.draw(st.tuples(channels | bad_channels, texts | st.integers(), kinds | bad_kinds, retries | bad_retries))
    field = data.draw(st.integers(0, 4))
    if field < 4:  # one field of one row has an unusual value
        at = data.draw(st.integers(0, len(rows) - 1))
        rows[at] = (*rows[at][:field], odd[field], *rows[at][field + 1 :])
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
    assert made(lambda: make_events(*columns)) == made(lambda: [Event(*row) for row in rows])


def test_an_event_made_in_a_batch_is_frozen() -> None:
    (event,) = make_events(["orders"], ["x"])
    assert event == Event("orders", "x") and dataclasses.replace(event, data="y") == Event("orders", "y")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.event = "a\nb"  # type: ignore[misc]
    with pytest.raises(InvalidEvent):
        dataclasses.replace(event, event="a\nb")
    assert not hasattr(event, "__dict__")


def test_columns_must_have_the_same_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        make_events(["orders", "orders"], ["x"])


# --- Frames -------------------------------------------------------------------------------------------------


def usual(steps: list[int]) -> list[Record]:
    positions = accumulate(steps, initial=P)
    return [Record(p, f"c{p % 3}", ("created", None, "\u00fc")[p % 3], None, f"\u00e9 {p}") for p in positions]


odd_records: Any = st.builds(
    Record,
    position=st.sampled_from([P, P + 1, P - 8, P + MAX_SEQUENCE]),
    channel=st.sampled_from(["a", "b"]),
    event=st.none() | st.sampled_from(["e", "a\nid: 9-9", "a\r", "\0", "\ud800"]),
    retry=st.none() | st.sampled_from([0, 5]),
    data=st.text(max_size=3) | st.sampled_from(["\ud800", "a\nb", "\r", "\r\n", "\0", "\n\nid: 9-9\n\n"]),
)


@given(st.lists(odd_records, max_size=2), st.integers(0, 2 * FEW))
@example([Record(P + MAX_SEQUENCE, "a", None, None, "")], FEW + 1)
@example([Record(P - 8, "a", None, None, "")], FEW + 1)
@example([Record(P + 1, "a", None, 0, "")], FEW + 1)
@example([Record(P + 1, "a", None, None, "a\nb")], FEW + 1)
@example([Record(P + 1, "a", None, None, "a\rb")], FEW + 1)
@example([Record(P + 1, "a", None, None, "\ud800")], FEW + 1)
@example([Record(P + 1, "a", "a\nid: 9-9", None, "")], FEW + 1)
@example([Record(P + 1, "a", "\0", None, "")], FEW + 1)
@example([Record(P + 1, "a", "\0", None, "")], FEW + 1)
@settings(deadline=None)
def test_frames_encoded_at_once_equal_those_encoded_one_by_one(odd: list[Record], count: int) -> None:
    records = usual([1] * count) + odd
    frames = encode_frames(records)
    assert frames == [encode_frame(record) for record in records]
    assert {type(frame) for frame in frames} <= {Frame}


@given(st.lists(odd_records, max_size=12), st.sets(st.sampled_from("abc")))
def test_only_the_records_of_wanted_channels_are_encoded(records: list[Record], channels: set[str]) -> None:
    items, frames = encode_wanted(records, channels)
    assert [type(item) for item in items] == [Frame if record.channel in channels else Record for record in records]
    assert list(items) == [encode_frame(record) if record.channel in channels else record for record in records]
    assert list(frames) == [item for item in items if isinstance(item, Frame)]


def test_the_records_of_a_batch_are_encoded_at_once() -> None:
    with patch.object(columns, "encode_frame", side_effect=AssertionError("one by one")):
        assert len(encode_frames(usual([1] * FEW))) == FEW + 1
    assert encode_frames([]) == []
