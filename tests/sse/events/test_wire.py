"""Frames and blocks, byte by byte. test_event_parsers.py tests what clients make of the bytes."""

import json
from typing import Any

import pytest

from sse.events.model import MAX_RETRY_MS, InvalidEvent, Record, make_position
from sse.events.wire import (
    RESET_REASONS,
    Frame,
    comment_block,
    encode_block,
    encode_frame,
    heartbeat_block,
    opening_block,
    reset_block,
    retry_block,
)

P = make_position(1732345678901, 7)
ID = "1732345678901-7"


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        pytest.param("", b"data: \n", id="empty is an event, too"),
        pytest.param('{"item":1}', b'data: {"item":1}\n', id="one line"),
        pytest.param("a\nb", b"data: a\ndata: b\n", id="LF"),
        pytest.param("a\rb", b"data: a\ndata: b\n", id="CR"),
        pytest.param("a\r\nb", b"data: a\ndata: b\n", id="CRLF is one end"),
        pytest.param("a\n\rb", b"data: a\ndata: \ndata: b\n", id="LF CR are two"),
        pytest.param("a\r\r\nb", b"data: a\ndata: \ndata: b\n", id="CR CRLF are two"),
        pytest.param("\n", b"data: \ndata: \n", id="LF alone"),
        pytest.param("a\n", b"data: a\ndata: \n", id="LF at the end"),
        pytest.param("\na", b"data: \ndata: a\n", id="LF at the beginning"),
        pytest.param("a\n\nid: 9-9\n\n", b"data: a\ndata: \ndata: id: 9-9\ndata: \ndata: \n", id="a block"),
        pytest.param(" a", b"data:  a\n", id="leading space"),
        pytest.param("\ufeffa", b"data: \xef\xbb\xbfa\n", id="U+FEFF"),
        pytest.param("a\0b", b"data: a\0b\n", id="NUL"),
        pytest.param("a\u2028b\x0b\x0c\x85c", b"data: a\xe2\x80\xa8b\x0b\x0c\xc2\x85c\n", id="no line ends"),
        pytest.param("\U0001f30a", b"data: \xf0\x9f\x8c\x8a\n", id="four bytes of UTF-8"),
    ],
)
def test_each_line_of_data_is_a_field_of_its_own(data: str, wire: bytes) -> None:
    frame = encode_frame(Record(P, "orders", None, None, data))
    original = data if "\r" in data else None
    assert frame == Frame(P, "orders", None, b"id: 1732345678901-7\n" + wire + b"\n", original)
    assert type(frame) is Frame
    assert encode_block(data) == wire + b"\n"


@pytest.mark.parametrize(
    ("event", "retry", "wire"),
    [
        pytest.param("created", None, b"event: created\n", id="type"),
        pytest.param(None, 2000, b"retry: 2000\n", id="retry"),
        pytest.param(None, 0, b"retry: 0\n", id="retry at once"),
        pytest.param("created", 2000, b"event: created\nretry: 2000\n", id="type and retry"),
        pytest.param(" a: b", None, b"event:  a: b\n", id="type with space and colon"),
        pytest.param("\u00fc", None, b"event: \xc3\xbc\n", id="type beyond ASCII"),
    ],
)
def test_the_fields_of_a_frame_have_a_fixed_order(event: str | None, retry: int | None, wire: bytes) -> None:
    whole = b"id: 1732345678901-7\n" + wire + b"data: a\n\n"
    assert encode_frame(Record(P, "orders", event, retry, "a")) == Frame(P, "orders", event, whole)
    assert encode_block("a", id=ID, event=event, retry=retry) == whole


@pytest.mark.parametrize(
    ("event", "data", "wire"),
    [
        pytest.param("a\nid: 9-9", "x", "event: a\ufffdid: 9-9\ndata: x", id="LF in the type"),
        pytest.param("a\r\nb\0", "x", "event: a\ufffd\ufffdb\ufffd\ndata: x", id="CRLF and NUL in the type"),
        pytest.param("\ud800", "\udfff", "event: ?\ndata: ?", id="lone surrogates"),
    ],
)
def test_an_invalid_record_in_the_log_injects_nothing_and_is_delivered(event: str, data: str, wire: str) -> None:
    frame = encode_frame(Record(P, "orders", event, None, data))
    assert frame.wire == f"id: {ID}\n{wire}\n\n".encode()
    if "\ud800" not in event:
        assert (
            f"event: {frame.event}\n".encode() in frame.wire
        )  # streams select by the type that is sent, not the one stored


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        pytest.param({}, b"\n", id="nothing: a blank line"),
        pytest.param({"id": ""}, b"id: \n\n", id="empty id: forget the cursor"),
        pytest.param({"id": "any thing", "data": "a"}, b"id: any thing\ndata: a\n\n", id="an app's own id"),
        pytest.param({"event": "heartbeat", "data": ""}, b"event: heartbeat\ndata: \n\n", id="control event"),
        pytest.param({"retry": 1}, b"retry: 1\n\n", id="retry alone"),
    ],
)
def test_a_block_has_the_fields_that_were_given(fields: dict[str, Any], wire: bytes) -> None:
    assert encode_block(**fields) == wire


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("id", "a\n", id="LF in id"),
        pytest.param("id", "a\rb", id="CR in id"),
        pytest.param("id", "a\0", id="NUL in id"),
        pytest.param("id", "\ud800", id="lone surrogate in id"),
        pytest.param("id", 5, id="id a number"),
        pytest.param("event", "a\nb", id="LF in type"),
        pytest.param("event", "", id="empty type"),
        pytest.param("retry", -1, id="negative retry"),
        pytest.param("retry", "1\nid: 9", id="retry a text"),
        pytest.param("data", b"a", id="data bytes"),
    ],
)
def test_a_block_refuses_what_an_event_refuses(field: str, value: Any) -> None:
    with pytest.raises(InvalidEvent, match=f"^{field}: ") as raised:
        encode_block(**{field: value})
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        pytest.param("", b": \n\n", id="empty"),
        pytest.param("hello", b": hello\n\n", id="one line"),
        pytest.param("a\ndata: b\r\n\rc", b": a\n: data: b\n: \n: c\n\n", id="lines stay comments"),
    ],
)
def test_a_comment_stays_a_comment(text: str, wire: bytes) -> None:
    assert comment_block(text) == wire


def test_an_opening_is_a_heartbeat_with_cursor_and_retry() -> None:
    assert opening_block(P, 2000, 1732345679000) == (
        b"id: 1732345678901-7\nretry: 2000\nevent: heartbeat\ndata: 1732345679000\n\n"
    )


def test_an_opening_without_a_position_has_no_id() -> None:
    assert opening_block(None, 2000, 5) == b"retry: 2000\nevent: heartbeat\ndata: 5\n\n"
    assert opening_block(0, 2000, 5).startswith(b"id: 0-0\n"), "the position before all events is one"


def test_a_retry_block_has_no_id() -> None:
    assert retry_block(0) == b"retry: 0\n\n"


@pytest.mark.parametrize("retry", [-1, MAX_RETRY_MS + 1, True])
def test_an_opening_and_a_retry_block_check_their_time(retry: int) -> None:
    with pytest.raises(InvalidEvent, match="^retry: "):
        opening_block(P, retry, 0)
    with pytest.raises(InvalidEvent, match="^retry: "):
        retry_block(retry)


def test_a_heartbeat_has_the_cursor_and_the_time() -> None:
    assert heartbeat_block(P, 1732345679000) == (b"id: 1732345678901-7\nevent: heartbeat\ndata: 1732345679000\n\n")


@pytest.mark.parametrize("reason", RESET_REASONS)
def test_a_reset_names_its_reason_and_the_logs_bounds(reason: Any) -> None:
    assert reset_block(reason, "5-0", make_position(6), P, P - 1) == (
        b"id: 1732345678901-6\nevent: stream-reset\n"
        b'data: {"reason":"' + reason.encode() + b'","requested":"5-0","oldest":"6-0",'
        b'"latest":"1732345678901-7"}\n\n'
    )


@pytest.mark.parametrize(
    ("requested", "shown"),
    [
        pytest.param("x" * 1_000_000, "x" * 64, id="1 MB is cut"),
        pytest.param("a\r\nb\0\x1b[31m\x7f", "a??b??[31m?", id="controls"),
        pytest.param('"},"\\', '"},"\\', id="JSON is escaped"),
        pytest.param("\u00e9\ud800\u202e", "???", id="beyond ASCII"),
    ],
)
def test_a_reset_quotes_a_hostile_cursor_safely(requested: str, shown: str) -> None:
    wire = reset_block("malformed", requested, None, P, P)
    assert wire.count(b"\n") == 4 and wire.isascii()
    detail = json.loads(wire.split(b"data: ", 1)[1])
    assert detail == {"reason": "malformed", "requested": shown, "oldest": None, "latest": ID}
