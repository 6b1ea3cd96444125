"""Ids, fields and blocks, byte by byte. What clients make of the bytes is in test_event_parsers.py."""

import dataclasses
import enum
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sse.event import (
    MAX_POSITION,
    MAX_RETRY_MS,
    MAX_SEQUENCE,
    MAX_TYPE_CHARS,
    RESET_REASONS,
    Event,
    Frame,
    InvalidEvent,
    MalformedCursor,
    Record,
    check_channel,
    comment_block,
    encode_block,
    encode_frame,
    format_id,
    heartbeat_block,
    make_position,
    opening_block,
    parse_id,
    parse_since,
    reset_block,
    retry_block,
)

P = make_position(1732345678901, 7)
ID = "1732345678901-7"


# --- Ids ----------------------------------------------------------------------------------------------------


@given(st.integers(0, MAX_POSITION))
@settings(deadline=None)
def test_every_position_survives_its_id(position: int) -> None:
    assert parse_id(format_id(position)) == position


@given(st.integers(0, MAX_POSITION), st.integers(0, MAX_POSITION))
@settings(deadline=None)
def test_positions_sort_as_the_times_and_numbers_of_their_ids(a: int, b: int) -> None:
    def parts(position: int) -> list[int]:
        return [int(part) for part in format_id(position).split("-")]

    assert (a < b) == (parts(a) < parts(b))


def test_the_position_after_a_full_millisecond_is_the_next_millisecond() -> None:
    assert format_id(make_position(5, MAX_SEQUENCE)) == "5-1048575"
    assert format_id(make_position(5, MAX_SEQUENCE) + 1) == "6-0"
    assert make_position(5, MAX_SEQUENCE + 1) == make_position(6)


@pytest.mark.parametrize(("ms", "n"), [(-1, 0), (5, -1), (1 << 43, 0), ((1 << 43) - 1, MAX_SEQUENCE + 1)])
def test_a_position_out_of_range_is_refused(ms: int, n: int) -> None:
    with pytest.raises(ValueError, match="must be from 0-0 to 8796093022207-1048575"):
        make_position(ms, n)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        pytest.param(ID, P, id="ours"),
        pytest.param("0-0", 0, id="zero"),
        pytest.param("0005-007", make_position(5, 7), id="leading zeros"),
        pytest.param("5-1048576", make_position(5, MAX_SEQUENCE), id="n clipped, not carried"),
        pytest.param("5-18446744073709551615", make_position(5, MAX_SEQUENCE), id="a Redis id's largest n"),
        pytest.param("18446744073709551615-0", MAX_POSITION, id="ms beyond 63 bits clipped into the future"),
        pytest.param("9" * 62 + "-9", MAX_POSITION, id="64 characters"),
    ],
)
def test_an_id_is_parsed(text: str, position: int) -> None:
    assert parse_id(text) == position
    assert parse_since(text) == position


NO_ID = [
    pytest.param("", id="empty"),
    pytest.param("-", id="hyphen alone"),
    pytest.param("5-", id="no n"),
    pytest.param("-5", id="no ms"),
    pytest.param("5-7-9", id="three parts"),
    pytest.param("-5-7", id="negative"),
    pytest.param("+5-7", id="plus"),
    pytest.param(" 5-7", id="leading space"),
    pytest.param("5-7 ", id="trailing space"),
    pytest.param("5-7\n", id="trailing LF"),
    pytest.param("5-7\0", id="trailing NUL"),
    pytest.param("5_0-7", id="underscore"),
    pytest.param("5.0-7", id="decimal point"),
    pytest.param("0x5-7", id="hexadecimal"),
    pytest.param("\u0665-7", id="Arabic-Indic digit"),
    pytest.param("\u00b2-7", id="superscript two"),
    pytest.param("5\u20137", id="en dash"),
    pytest.param("$", id="Redis: newest"),
    pytest.param("Earliest", id="word"),
    pytest.param("9" * 63 + "-9", id="65 characters"),
    pytest.param("5" * 1_000_000 + "-7", id="1 MB"),
]


@pytest.mark.parametrize("text", [*NO_ID, pytest.param("1732345678901", id="ms alone"), "earliest"])
def test_what_is_not_exactly_an_id_is_malformed(text: str) -> None:
    with pytest.raises(MalformedCursor, match="must be <unix ms>-<n>") as raised:
        parse_id(text)
    assert len(str(raised.value)) < 400  # of 1 MB, a log line holds the beginning


@pytest.mark.parametrize("text", NO_ID)
def test_since_takes_nothing_else(text: str) -> None:
    with pytest.raises(MalformedCursor, match="must be <unix ms>-<n>, <unix ms> or earliest"):
        parse_since(text)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        pytest.param("1732345678901", make_position(1732345678901), id="a time: its first event is included"),
        pytest.param(ID, P + 1, id="an id: itself not included"),
        pytest.param("earliest", 1, id="earliest"),
        pytest.param("0", 1, id="the epoch"),
        pytest.param("9" * 64, MAX_POSITION + 1, id="beyond all time: nothing, and no overflow"),
    ],
)
def test_since_says_which_event_comes_first(text: str, first: int) -> None:
    assert parse_since(text) + 1 == first


# --- Fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "0", "orders", "user:42", "A.b_c-d:e", "x" * 128])
def test_a_channel_name_is_accepted(name: str) -> None:
    assert check_channel(name) == name
    assert Event(name, "").channel == name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 129, id="129 characters"),
        pytest.param(".a", id="begins with a dot"),
        pytest.param("-a", id="begins with a hyphen"),
        pytest.param("a b", id="space"),
        pytest.param("a/b", id="slash"),
        pytest.param("a\n", id="trailing LF"),
        pytest.param("a\r\nb", id="CRLF"),
        pytest.param("a\0", id="NUL"),
        pytest.param("\u00e9", id="not ASCII"),
        pytest.param("a\u0661", id="another script's digit"),
        pytest.param("a*", id="wildcard"),
        pytest.param("_", id="underscore alone"),
        pytest.param("_a\n", id="reserved with trailing LF"),
        pytest.param(b"a", id="bytes"),
        pytest.param(None, id="None"),
    ],
)
def test_another_channel_name_is_refused_even_where_reserved_names_are_known(name: Any) -> None:
    for reserved_ok in (False, True):
        with pytest.raises(InvalidEvent, match="^channel: ") as raised:
            check_channel(name, reserved_ok=reserved_ok)
        assert raised.value.field == "channel"
    with pytest.raises(InvalidEvent, match="^channel: "):
        Event(name, "")


def test_a_reserved_channel_is_known_to_the_service_and_closed_to_publishers() -> None:
    assert check_channel("_canary", reserved_ok=True) == "_canary"
    with pytest.raises(InvalidEvent, match="^channel: a name that begins with _ is reserved$"):
        check_channel("_canary")
    with pytest.raises(InvalidEvent, match="reserved"):
        Event("_canary", "")


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        pytest.param("event", "", "1 to 1024 characters", id="type: empty"),
        pytest.param("event", "x" * (MAX_TYPE_CHARS + 1), "1 to 1024 characters", id="type: too long"),
        pytest.param("event", "a\nb", "CR, LF or NUL", id="type: LF"),
        pytest.param("event", "a\r", "CR, LF or NUL", id="type: CR at the end"),
        pytest.param("event", "\0a", "CR, LF or NUL", id="type: NUL"),
        pytest.param("event", "\ud800", "lone surrogate", id="type: half a surrogate pair"),
        pytest.param("event", b"a", "must be str, not bytes", id="type: bytes"),
        pytest.param("event", "heartbeat", "reserved", id="type: ours (heartbeat)"),
        pytest.param("event", "stream-reset", "reserved", id="type: ours (stream-reset)"),
        pytest.param("retry", -1, "from 0 to 2147483647", id="retry: negative"),
        pytest.param("retry", MAX_RETRY_MS + 1, "from 0 to 2147483647", id="retry: beyond 32 bits"),
        pytest.param("retry", True, "must be an integer", id="retry: bool"),
        pytest.param("retry", 1.0, "must be an integer", id="retry: float"),
        pytest.param("retry", "1", "must be an integer", id="retry: str"),
        pytest.param("data", "a\udfff", "character 1 is a lone surrogate", id="data: half a surrogate pair"),
        pytest.param("data", b"a", "must be str, not bytes", id="data: bytes"),
        pytest.param("data", None, "must be str, not NoneType", id="data: None"),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_name_and_limit(field: str, value: Any, limit: str) -> None:
    fields: dict[str, Any] = {"channel": "orders", "data": "", field: value}
    with pytest.raises(InvalidEvent, match=f"^{field}: .*{limit}") as raised:
        Event(**fields)
    assert raised.value.field == field
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    "kind", ["message", "error", "open", "Heartbeat", " a: b ", "\u00fc", "x" * MAX_TYPE_CHARS]
)
def test_every_other_type_is_free_to_users(kind: str) -> None:
    assert Event("orders", "", event=kind).event == kind


@pytest.mark.parametrize("data", ["", " ", "\0", "\ufeff", "\n", "\r\n", "\U0001f30a"])
def test_data_is_kept_verbatim(data: str) -> None:
    assert Event("orders", data).data == data


def test_an_event_cannot_be_changed_after_it_was_checked() -> None:
    event = Event("orders", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.event = "a\nb"  # type: ignore[misc]
    assert not hasattr(event, "__dict__")  # slots: a batch holds ten thousand of them


class Kind(str, enum.Enum):  # noqa: UP042 -- a StrEnum formats itself as its value; this one, as "Kind.CREATED"
    CREATED = "created"


def test_an_enum_member_is_published_as_its_value() -> None:
    event = Event(Kind.CREATED, Kind.CREATED, event=Kind.CREATED)
    assert [type(text) for text in (event.channel, event.data, event.event)] == [str, str, str]
    wire = encode_frame(Record(P, event.channel, event.event, None, event.data)).wire
    assert wire == b"id: 1732345678901-7\nevent: created\ndata: created\n\n"
    assert encode_block(Kind.CREATED, id=Kind.CREATED) == b"id: created\ndata: created\n\n"


# --- Blocks -------------------------------------------------------------------------------------------------


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
def test_data_goes_out_a_field_for_each_line(data: str, wire: bytes) -> None:
    frame = encode_frame(Record(P, "orders", None, None, data))
    assert frame == Frame(P, "orders", None, b"id: 1732345678901-7\n" + wire + b"\n")
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
def test_the_fields_of_a_frame_come_in_one_order(event: str | None, retry: int | None, wire: bytes) -> None:
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
def test_a_record_that_a_foreign_program_stored_injects_nothing_and_stops_nothing(
    event: str, data: str, wire: str
) -> None:
    frame = encode_frame(Record(P, "orders", event, None, data))
    assert frame.wire == f"id: {ID}\n{wire}\n\n".encode()
    if "\ud800" not in event:
        assert f"event: {frame.event}\n".encode() in frame.wire  # streams select by the type that is sent


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
def test_any_block(fields: dict[str, Any], wire: bytes) -> None:
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
def test_any_block_refuses_what_an_event_does(field: str, value: Any) -> None:
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


def test_an_opening_sets_cursor_and_retry_and_has_no_data() -> None:
    assert opening_block(P, 2000) == b"id: 1732345678901-7\nretry: 2000\n\n"


def test_a_retry_block_leaves_the_cursor_alone() -> None:
    assert retry_block(0) == b"retry: 0\n\n"


@pytest.mark.parametrize("retry", [-1, MAX_RETRY_MS + 1, True])
def test_an_opening_and_a_retry_block_check_their_time(retry: int) -> None:
    with pytest.raises(InvalidEvent, match="^retry: "):
        opening_block(P, retry)
    with pytest.raises(InvalidEvent, match="^retry: "):
        retry_block(retry)


def test_a_heartbeat_has_the_cursor_and_the_time() -> None:
    assert heartbeat_block(P, 1732345679000) == (
        b"id: 1732345678901-7\nevent: heartbeat\ndata: 1732345679000\n\n"
    )


@pytest.mark.parametrize("reason", RESET_REASONS)
def test_a_reset_says_why_and_what_there_is(reason: Any) -> None:
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
def test_a_reset_returns_a_hostile_cursor_harmless(requested: str, shown: str) -> None:
    wire = reset_block("malformed", requested, None, P, P)
    assert wire.count(b"\n") == 4 and wire.isascii()
    detail = json.loads(wire.split(b"data: ", 1)[1])
    assert detail == {"reason": "malformed", "requested": shown, "oldest": None, "latest": ID}
