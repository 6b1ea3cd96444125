"""An event's exact text, its envelope, and a plain stream's own lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.events import plain
from sse.events.batch import encode_frames
from sse.events.markers import end_marker, erased_marker
from sse.events.model import InvalidEvent, Record, make_position
from sse.events.wire import encode_frame, reset_block
from tests.support.sse_parser import EventParser

P = make_position(1_732_345_678_901, 7)

texts = st.text(st.characters(exclude_categories=("Cs",))) | st.text("\r\n: data\0", max_size=12)
types = st.none() | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0"), min_size=1)
records = st.builds(
    Record, st.integers(0, 2**62), st.sampled_from(["orders", "a:b"]), types, st.none() | st.integers(0, 9), texts
)


@given(records)
def test_a_frame_knows_the_text_that_was_published(record: Record) -> None:
    assert encode_frame(record).text() == record.data


@given(st.lists(records, min_size=5, max_size=8))
def test_so_do_frames_that_were_encoded_together(batch: list[Record]) -> None:
    assert [frame.text() for frame in encode_frames(batch)] == [record.data for record in batch]


@given(records)
def test_an_envelope_has_what_was_published_and_the_fields_stay(record: Record) -> None:
    bare, enclosed = EventParser(), EventParser()
    (event,) = bare.feed(encode_frame(record).wire)
    (block,) = enclosed.feed(encode_frame(record).envelope())
    assert (block.id, block.event, block.retry) == (event.id, event.event, event.retry)
    expected = {"channel": record.channel, "id": event.id, "event": record.event, "data": record.data}
    if record.event is None:
        del expected["event"]
    content = json.loads(block.data or "")
    assert content == expected
    assert list(content) == list(expected), "in the order that the docs have"


def test_an_envelope_is_compact_json_in_utf_8() -> None:
    frame = encode_frame(Record(P, "orders", "created", None, 'ü "quoted"\n'))
    assert frame.envelope() == (
        b"id: 1732345678901-7\nevent: created\n"
        b'data: {"channel":"orders","id":"1732345678901-7","event":"created",'
        b'"data":"\xc3\xbc \\"quoted\\"\\n"}\n\n'
    )


def test_a_text_that_utf_8_cannot_carry_still_has_an_envelope() -> None:
    assert b'"data":"?\\r"' in encode_frame(Record(P, "orders", None, None, "\ud800\r")).envelope()


def test_a_plain_streams_own_lines_are_comments() -> None:
    parser = EventParser()
    reset = plain.reset_block("expired", "5-0\n", None, P, P)
    marker = end_marker("orders")
    end = encode_frame(Record(P, marker.channel, marker.event, None, marker.data))
    assert parser.feed(plain.opening_block(P, 2000, 1234)) == []
    assert not parser.partial, "the opening is a block of its own"
    assert parser.feed(reset + plain.heartbeat_block(P, 1234) + plain.marker_block(end)) == []
    assert parser.comments == 4
    (event,) = parser.feed(encode_frame(Record(P, "orders", None, None, "x")).wire)
    assert event == ("1732345678901-7", None, "x", None)


def test_a_plain_streams_lines_say_what_the_blocks_would() -> None:
    assert plain.opening_block(P, 2000, 1234) == b": heartbeat 1234\n\n"
    assert plain.heartbeat_block(P, 1234) == b": heartbeat 1234\n"
    (block,) = EventParser().feed(reset_block("expired", "5-0", None, P, P))
    line = plain.reset_block("expired", "5-0", None, P, P).decode()
    assert line == f": stream-reset {block.data}\n"
    marker = erased_marker("orders", P)
    frame = encode_frame(Record(P, marker.channel, marker.event, None, marker.data))
    assert plain.marker_block(frame).decode() == f": stream-reset {marker.data}\n"


def test_a_marker_of_many_lines_stays_a_comment() -> None:
    frame = encode_frame(Record(P, "orders", "run", None, "a\nid: 1-1\r\n\ndata: b"))
    assert EventParser().feed(plain.marker_block(frame) + b"\n\n") == []


def test_a_plain_stream_ends_with_a_retry_time_that_makes_no_event() -> None:
    """A block of ``retry`` alone is an event without data for some clients; a line of it alone is not."""
    parser = EventParser()
    parser.feed(encode_frame(Record(P, "orders", None, None, "x")).wire)
    assert plain.retry_block(1500) == b"retry: 1500\n"
    assert parser.feed(plain.retry_block(1500)) == []
    with pytest.raises(InvalidEvent):
        plain.retry_block(-1)


class OpenAIDecoder:
    """How the ``openai`` package makes events of lines: a blank line is an event if any id came before it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._id = self._retry = ""
        self._data: list[str] = []

    def feed(self, octets: bytes) -> list[str]:
        for line in octets.decode().split("\n")[:-1]:
            if not line:
                if self._data or self._id or self._retry:
                    self.events.append("\n".join(self._data))
                self._data, self._retry = [], ""
            elif line.startswith("data: "):
                self._data.append(line[6:])
            elif line.startswith("id: "):
                self._id = line[4:]
            elif line.startswith("retry: "):
                self._retry = line[7:]
        return self.events


def test_a_client_that_takes_every_block_after_an_id_for_an_event_sees_only_what_was_published() -> None:
    one, two = (encode_frame(Record(P + n, "orders", None, None, str(n))).wire for n in (1, 2))
    beat = plain.heartbeat_block(P, 1234)
    sent = plain.opening_block(P, 2000, 1234) + beat + one + beat + beat + two + beat + plain.retry_block(2000)
    assert OpenAIDecoder().feed(sent) == ["1", "2"]
