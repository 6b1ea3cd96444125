"""Batches: which lines become events, and how a refusal names the line, the field and the limit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.events.model import Event
from sse.web.ndjson import batch
from sse.web.problems import Problem

LIMITS = {"max_events": 100, "max_event_bytes": 1000}
GOOD = b'{"channel":"a","data":"x"}'


def refused(body: bytes, **limits: int) -> Problem:
    with pytest.raises(Problem) as problem:
        batch(body, **{**LIMITS, **limits})
    return problem.value


@pytest.mark.parametrize(
    ("line", "event"),
    [
        pytest.param(b'{"channel":"a","data":"x"}', Event("a", "x"), id="the least"),
        pytest.param(b'{"channel":"a","data":"x","event":"e","retry":5}', Event("a", "x", "e", 5), id="the most"),
        pytest.param(b'{"channel":"a","data":""}', Event("a", ""), id="empty data"),
        pytest.param(b'{"channel":"a","data":"x","event":null,"retry":null}', Event("a", "x"), id="null is not given"),
        pytest.param(b'{"channel":"a","data":null}', Event("a", "null"), id="null is data"),
        pytest.param(b'{"channel":"a","data":{"b": [1, 2.5, true]}}', Event("a", '{"b":[1,2.5,true]}'), id="an object"),
        pytest.param('{"channel":"a","data":{"ü": "é"}}'.encode(), Event("a", '{"ü":"é"}'), id="UTF-8 stays UTF-8"),
        pytest.param(b'{"channel":"a","data":12345678901234567890}', Event("a", "12345678901234567890"), id="a number"),
        pytest.param(b'{"channel":"a","data":"a\\r\\nb\\u0000"}', Event("a", "a\r\nb\0"), id="any character in data"),
        pytest.param(b'\xef\xbb\xbf{"channel":"a","data":"x"}', Event("a", "x"), id="a BOM before the first line"),
        pytest.param(b'\t{"data":"x",\t"channel":"a"}  \r', Event("a", "x"), id="white space, CR before LF"),
    ],
)
def test_a_line_is_an_event(line: bytes, event: Event) -> None:
    assert batch(line, **LIMITS) == [event]


END = b'{"channel":"a","close":true}'
LAST = b'{"channel":"a","data":"x","close":true}'
OTHER = b'{"channel":"b","data":"y"}'
OTHER_END = b'{"channel":"b","close":true}'


@pytest.mark.parametrize(
    ("lines", "events", "closing"),
    [
        pytest.param([LAST], 1, {"a": None}, id="with its last event"),
        pytest.param([END], 0, {"a": 0}, id="without an event"),
        pytest.param([OTHER, END, OTHER], 2, {"a": 1}, id="between others"),
        pytest.param([GOOD, GOOD, END], 2, {"a": 2}, id="after its events"),
        pytest.param([OTHER_END, LAST], 1, {"b": 0, "a": None}, id="two"),
        pytest.param([b'{"channel":"a","data":"x","close":null}'], 1, {}, id="null is not given"),
        pytest.param([b'{"channel":"a","data":"x","close":false}'], 1, {}, id="false"),
    ],
)
def test_a_line_may_close_its_channel(lines: list[bytes], events: int, closing: dict[str, int | None]) -> None:
    found = batch(b"\n".join(lines), **LIMITS)
    assert len(found) == events and found.closing == closing


@pytest.mark.parametrize("lines", [[LAST, GOOD], [END, GOOD], [END, OTHER, END], [LAST, LAST], [END, LAST]], ids=str)
def test_nothing_may_follow_a_channels_end(lines: list[bytes]) -> None:
    problem = refused(b"\n".join(lines))
    assert (problem.status, problem.extra["line"]) == (400, len(lines))
    assert problem.detail == f"line {len(lines)}: a was closed by a line before"


def test_a_line_that_only_closes_counts_as_one() -> None:
    body = b"\n".join([OTHER, END, OTHER_END])
    assert len(batch(body, max_events=3, max_event_bytes=9).closing) == 2
    assert refused(body, max_events=2).status == 413


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        pytest.param(b"nonsense", 400, "not JSON", id="no JSON"),
        pytest.param(b'{"channel":"a","data":"x"', 400, "not JSON", id="cut off"),
        pytest.param(GOOD + b" " + GOOD, 400, "not JSON", id="two objects"),
        pytest.param(b'["a","x"]', 400, "must be a JSON object", id="an array"),
        pytest.param(b"null", 400, "must be a JSON object", id="null"),
        pytest.param(b"\xff\xfe", 400, "UTF-8", id="no UTF-8"),
        pytest.param(b'{"channel":"a","data":"\xc3"}', 400, "not UTF-8: bad byte at offset 23", id="half a character"),
        pytest.param(b'{"channel":"a","data":"\xed\xa0\x80"}', 400, "not UTF-8: bad byte", id="an encoded surrogate"),
        pytest.param('{"channel":"a","data":"x"}'.encode("utf-16"), 400, "not UTF-8", id="UTF-16"),
        pytest.param(b'{"channel":"a","data":"\\ud800"}', 400, "surrogate", id="an escaped lone surrogate"),
        pytest.param(b'{"channel":"a","data":{"k":"\\udfff"}}', 400, "surrogate", id="one inside an object"),
        pytest.param(b'{"channel":"a","data":NaN}', 400, "JSON compliant", id="NaN"),
        pytest.param(b'{"channel":"a","data":[1e999]}', 400, "JSON compliant", id="infinity"),
        pytest.param(b'{"data":"x"}', 400, "no member 'channel'", id="no channel"),
        pytest.param(b'{"channel":"a"}', 400, "no member 'data'", id="no data"),
        pytest.param(b'{"channel":"a","close":false}', 400, "no member 'data'", id="neither data nor an end"),
        pytest.param(b'{"channel":"a","close":true,"event":"e"}', 400, "no member 'data'", id="a type without data"),
        pytest.param(b'{"channel":"a b","close":true}', 400, "channel: must be", id="the end of a bad channel"),
        pytest.param(b'{"channel":"_a","close":true}', 400, "reserved", id="the end of a reserved channel"),
        pytest.param(b'{"channel":"a","data":"x","close":1}', 400, "close must be", id="a number for close"),
        pytest.param(b'{"channel":"a","data":"x","close":"true"}', 400, "close must be", id="a text for close"),
        pytest.param(b'{"channel":"a","data":"x","id":"1-1"}', 400, "unknown member 'id'", id="an unknown member"),
        pytest.param(b'{"channel":"a","data":"x","channel":"b"}', 400, "the member 'channel' is there more", id="a member twice"),
        pytest.param(b'{"channel":"a","data":[{"k":1,"k":1}]}', 400, "the member 'k' is there more", id="one inside the data"),
        pytest.param(b'{"channel":1,"data":"x"}', 400, "channel: must be", id="a number for a channel"),
        pytest.param(b'{"channel":"a b","data":"x"}', 400, "channel: must be", id="a bad channel"),
        pytest.param(b'{"channel":"a\\n","data":"x"}', 400, "channel: must be", id="a channel with a line end"),
        pytest.param(b'{"channel":"_canary","data":"x"}', 400, "reserved", id="a reserved channel"),
        pytest.param(b'{"channel":"%s","data":"x"}' % (b"a" * 129), 400, "1 to 128", id="a channel of 129"),
        pytest.param(b'{"channel":"a","data":"x","event":"a\\nb"}', 400, "CR, LF or NUL", id="LF in a type"),
        pytest.param(b'{"channel":"a","data":"x","event":"a\\rb"}', 400, "CR, LF or NUL", id="CR in a type"),
        pytest.param(b'{"channel":"a","data":"x","event":"a\\u0000"}', 400, "CR, LF or NUL", id="NUL in a type"),
        pytest.param(b'{"channel":"a","data":"x","event":"heartbeat"}', 400, "reserved", id="a reserved type"),
        pytest.param(b'{"channel":"a","data":"x","event":7}', 400, "event: must be str", id="a number for a type"),
        pytest.param(b'{"channel":"a","data":"x","retry":"5"}', 400, "retry: must be", id="a text for retry"),
        pytest.param(b'{"channel":"a","data":"x","retry":true}', 400, "retry: must be", id="true for retry"),
        pytest.param(b'{"channel":"a","data":"x","retry":-1}', 400, "retry: must be", id="a negative retry"),
        pytest.param(b'{"channel":"a","data":"x","retry":1.0}', 400, "retry: must be", id="a fraction for retry"),
        pytest.param(b'{"channel":"a","data":"%s"}' % (b"." * 1001), 413, "over 1000 bytes", id="too large"),
        pytest.param(b'{"channel":"a","data":"%s"}' % ("é".encode() * 501), 413, "1000 bytes", id="in bytes"),
        pytest.param(b"[" * 100_000, 400, "recursion", id="nested without end"),
        pytest.param(b'{"channel":"a","data":%s}' % (b"9" * 5000), 400, "digits", id="a number without end"),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_a_bad_line_is_refused_with_its_number(line: bytes, status: int, says: str, before: int) -> None:
    problem = refused(b"\n".join([*[GOOD] * before, line, GOOD]))
    assert problem.status == status
    assert problem.detail.startswith(f"line {before + 1}: ")
    assert says in problem.detail
    assert problem.extra["line"] == before + 1
    assert len(problem.detail) < 400, "a refusal does not repeat all that the client sent"


def test_empty_lines_are_skipped_and_counted() -> None:
    assert len(batch(b"\n\n" + GOOD + b"\n\r\n  \n" + GOOD + b"\n\n", **LIMITS)) == 2
    assert refused(b"\n\n" + GOOD + b"\n\nbad").detail.startswith("line 5: ")


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n \n"])
def test_a_batch_without_events_is_refused(body: bytes) -> None:
    assert refused(body).status == 400


def test_a_batch_has_at_most_its_limit_of_events() -> None:
    assert len(batch(b"\n".join([GOOD] * 100), **LIMITS)) == 100
    problem = refused(b"\n".join([GOOD] * 101))
    assert (problem.status, problem.extra["limit"]) == (413, 100)


events: st.SearchStrategy[dict[str, str]] = st.builds(
    dict,
    channel=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True),
    data=st.text(st.characters(codec="utf-8")),
)


@given(st.lists(events, min_size=1, max_size=20), st.booleans())
def test_a_json_librarys_output_is_read_unchanged(many: list[dict[str, str]], ascii_only: bool) -> None:
    body = "\n".join(json.dumps(one, ensure_ascii=ascii_only) for one in many).encode()
    assert batch(body, **LIMITS) == [Event(one["channel"], one["data"]) for one in many]
