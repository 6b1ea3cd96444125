"""Ids and cursors: which texts are valid, and their positions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sse.events.model import (
    MAX_POSITION,
    MAX_SEQUENCE,
    MalformedCursor,
    format_id,
    make_position,
    parse_id,
    parse_since,
)

P = make_position(1732345678901, 7)
ID = "1732345678901-7"


@given(st.integers(0, MAX_POSITION))
@settings(deadline=None)
def test_a_position_survives_formatting_and_parsing(position: int) -> None:
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
def test_anything_but_an_id_is_malformed(text: str) -> None:
    with pytest.raises(MalformedCursor, match="must be <unix ms>-<n>") as raised:
        parse_id(text)
    assert len(str(raised.value)) < 400  # a log line quotes only the beginning of 1 MB


@pytest.mark.parametrize("text", NO_ID)
def test_since_refuses_anything_else(text: str) -> None:
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
def test_since_chooses_the_first_event(text: str, first: int) -> None:
    assert parse_since(text) + 1 == first
