"""An event's fields: what is accepted, and what is refused with the field's name and limit."""

import dataclasses
import enum
from typing import Any

import pytest

from sse.events.model import MAX_RETRY_MS, MAX_TYPE_CHARS, Event, InvalidEvent, Record, check_channel, make_position
from sse.events.wire import encode_block, encode_frame

P = make_position(1732345678901, 7)


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
def test_an_invalid_channel_name_is_refused_even_where_reserved_names_are_allowed(name: Any) -> None:
    for reserved_ok in (False, True):
        with pytest.raises(InvalidEvent, match="^channel: ") as raised:
            check_channel(name, reserved_ok=reserved_ok)
        assert raised.value.field == "channel"
    with pytest.raises(InvalidEvent, match="^channel: "):
        Event(name, "")


def test_a_reserved_channel_is_refused_to_publishers_and_allowed_to_the_service() -> None:
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


@pytest.mark.parametrize("kind", ["message", "error", "open", "Heartbeat", " a: b ", "\u00fc", "x" * MAX_TYPE_CHARS])
def test_every_other_type_may_be_published(kind: str) -> None:
    assert Event("orders", "", event=kind).event == kind


@pytest.mark.parametrize("data", ["", " ", "\0", "\ufeff", "\n", "\r\n", "\U0001f30a"])
def test_data_is_kept_verbatim(data: str) -> None:
    assert Event("orders", data).data == data


def test_an_event_cannot_be_changed_after_it_was_checked() -> None:
    event = Event("orders", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.event = "a\nb"  # type: ignore[misc]
    assert not hasattr(event, "__dict__")  # slots, because a batch has ten thousand events


class Kind(str, enum.Enum):  # noqa: UP042 -- a StrEnum formats itself as its value; this one, as "Kind.CREATED"
    CREATED = "created"


def test_an_enum_member_is_published_as_its_value() -> None:
    event = Event(Kind.CREATED, Kind.CREATED, event=Kind.CREATED)
    assert [type(text) for text in (event.channel, event.data, event.event)] == [str, str, str]
    wire = encode_frame(Record(P, event.channel, event.event, None, event.data)).wire
    assert wire == b"id: 1732345678901-7\nevent: created\ndata: created\n\n"
    assert encode_block(Kind.CREATED, id=Kind.CREATED) == b"id: created\ndata: created\n\n"
