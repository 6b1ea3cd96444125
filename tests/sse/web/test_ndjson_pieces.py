"""Reading many lines at once accepts and refuses exactly what reading them one by one does."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sse.events.model import Event
from sse.web import ndjson
from sse.web.ndjson import batch
from sse.web.problems import Problem

GOOD = b'{"channel":"a","data":"x"}'
MAX_EVENTS, MAX_EVENT_BYTES = 6, 40
Outcome = tuple[Any, ...]


def outcome(body: bytes, step: int) -> Outcome:
    """The events of a batch that is read in pieces of ``step`` bytes (0: line by line), or its refusal."""
    once = patch.object(ndjson, "_at_once", lambda *_: None) if step == 0 else patch.object(ndjson, "BYTES_PER_STEP", step)
    try:
        with once:
            events = batch(body, max_events=MAX_EVENTS, max_event_bytes=MAX_EVENT_BYTES)
    except Problem as problem:
        return problem.status, problem.detail, problem.extra
    return *((type(event), event, repr(event), hash(event)) for event in events), *events.closing.items()


# Lines of every kind, some of which run over their end or hold two objects; and fragments of lines. NaN and NUL are among
# them, because they separate lines and values when many are read at once.
WHOLE = [
    b'{"channel":"b","data":"y","event":"e","retry":5}', b'{"channel":"a","data":{"k":[1,{"k":"x"}]}}', GOOD + b"\r", b"",
    b'{"channel":"a","data":"\\"\\\\"}', b'{"channel":"a","data":"","event":"\\\\"}', b'{"channel":"a","data":"\\ud83d"}', b'{"channel":"a","data":"\\ude00"}',
    '{"channel":"a","data":"é"}'.encode(), b'{"channel":"a","data":"%s"}' % (b"." * 41), ('{"channel":"a","data":"%s"}' % ("é" * 21)).encode(),
    b'{"channel":"_a","data":""}', b'{"channel":"a b","data":""}', b'{"channel":1,"data":""}', b'{"channel":"a","data":"","k":1}', b'{"data":""}',
    b'{"channel":"a","data":"","event":7}', b'{"channel":"a","data":"","event":"\\n"}', b'{"channel":"a","data":"","event":"heartbeat"}',
    b'{"channel":"a","data":"","retry":-1}', b'{"channel":"a","data":"","retry":true}', b'{"channel":"a","data":"","retry":1}', b'{"channel":"a","data":"","retry":1.0}',
    b'{"channel":"a","data":"x","data":"y"}', b'{"channel":"a","data":[{"k":1,"k":1}]}', b'{"channel":"a","data":"","event":null,"event":null}',
    b'{"channel":"b","data":"y","close":true}', b'{"channel":"b","close":true}', b'{"channel":"c","close":true}', b'{"channel":"a","data":"","close":false}',
    b'{"channel":"b","close":1}', b'{"channel":"a","data":NaN}', b'{"channel":"a","data":[1e999]}', b'{"channel":"a","data":[["\\u0000"],"\\u0000",1]}', b"[]", b"NaN", b"bad",
    b'{"channel":"a","data":[1', b"2]}", b'{"channel":"a"', b'"data":"x"}', b'{"channel":"a","data":"x', b'y"}', GOOD + b",NaN," + GOOD,
]  # fmt: skip
SHARDS = [
    *WHOLE, b'{"channel":"a","data":[', b"[", b"]", b"{", b"}", b",", b":", b'"channel":"b"', b'"data":1', b'"event":null', b",NaN,",
    b"-Infinity", b"0", b"null", b'""', b'"k":1', b'"\\u0000"', b'"', b"\\", b"\\u00e9", b" ", b"\t", b"\r", b"\n\n", b"\x0b", b"\0", b"\x7f",
    b"\xc3\xa9", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
]  # fmt: skip

odd_lines = st.sampled_from(WHOLE) | st.lists(st.sampled_from(SHARDS), max_size=5).map(b"".join)
bodies = st.tuples(st.lists(odd_lines, max_size=3), st.lists(st.just(GOOD), max_size=5)).flatmap(lambda two: st.permutations(two[0] + two[1])).map(b"\n".join)


@given(bodies, st.sampled_from([1, 30, 60, ndjson.BYTES_PER_STEP]))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(b'{"channel":"a"\n"data":"x"}', 100)
@example(b'{"channel":"a",\n"data":"x"}', 100)
@example(b'{"channel":"a","data":[1\n2]}\n' + GOOD + b",0," + GOOD, 100)
@example(b'{"channel":"a","data":[1\n2]}\n' + GOOD + b",NaN," + GOOD, 100)
@example(b'{"channel":"a","data":[1\n2],"data":"x"}\n' + GOOD + b",NaN," + GOOD, 100)
@example(b'{"channel":"a","event":[1\n2],"event":"e","data":"x"}\n' + GOOD + b",NaN," + GOOD, 100)
@example(GOOD + b"," + GOOD + b"," + GOOD, 100)
@example(b"{}],[{}\n" + GOOD, 100)
@example(GOOD + b"]\n[" + GOOD, 100)
@example(b'{"channel":"a","data":"x\ny"}', 100)
@example(b'{"channel":"a","data":"x\\\ny"}', 100)
@example(b'{"channel":"a","data":"x\ny"}\n' + GOOD + b",NaN," + GOOD, 100)
@example(b'{"channel":"a","data":"","k":1}', 100)
@example(('{"channel":"a","data":"%s"}' % ("é" * 20)).encode(), 100)
@example(('{"channel":"a","data":"%s"}' % ("é" * 21)).encode(), 100)
@example(b'{"channel":"a","data":"\\\\","event":"\\\\","retry":1,"retry":1}', 100)
@example(b'{"channel":"a","data":"","retry":-1}', 100)
@example(b'{"channel":"a","data":"x","data":"y"}', 100)
@example(b'{"channel":"a","data":"\\"","data":"\\""}', 100)
@example(b'{"channel":"a","data":"\\\\","data":"\\\\\\""}', 100)
@example(b'{"channel":"a","data":{"k":1,"k":1}}', 100)
@example(b'{"channel":"a","data":{"":{"\\"":1,"\\"":2}}}', 100)
@example(b'{"channel":"a","retry":1,"retry":1,"data":""}', 100)
@example(b'{"channel":"a","data":[["\\u0000"],"\\u0000",1]}\n{"channel":"a","data":{}}', 100)
@example(b'{"channel":"a","data":"","retry":1}\n{"channel":"a","data":"","retry":true}', 100)
@example(b'{"channel":"a","data":"","retry":0}\n{"channel":"a","data":"","retry":false}', 100)
@example(b'{"channel":"a","data":"\\ud83d"}\n{"channel":"a","data":"\\ude00"}', 100)
@example(b'{"channel":{},"data":""}', 100)
@example(b'{"channel":"a","data":"","event":[]}', 100)
@example(b'{"channel":"a","data":"","event":"heartbeat"}', 100)
@example(b'{"channel":"a","data":%s}' % (b"9" * 5000), 100)
@example(b'{"channel":"a","data":%s}' % (b"[" * 100_000), 100)
@example(b"\n".join([GOOD] * MAX_EVENTS) + b"\n", 60)
@example(b"\n".join([GOOD] * (MAX_EVENTS + 1)), 60)
@example(b"\n".join([GOOD] * MAX_EVENTS + [b"bad"]), 60)
@example(b"\n\n".join([GOOD] * 3 + [b"bad"]), 30)
@example(b'{"channel":"a","data":"x","close":true}\n' + GOOD, 30)
@example(b'{"channel":"b","close":true}\n' + b"\n".join([GOOD] * (MAX_EVENTS - 1)), 30)
@example(b'{"channel":"b","close":true}\n' + b"\n".join([GOOD] * MAX_EVENTS), 30)
def test_pieces_are_read_as_single_lines_are(body: bytes, step: int) -> None:
    assert outcome(body, step) == outcome(body, 0)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
objects = st.fixed_dictionaries(
    {"channel": st.sampled_from(["a", "b:1"]), "data": values},
    optional={"event": st.none() | st.text(max_size=3), "retry": st.none() | st.integers(-1, 2**31)},
)


@given(st.lists(objects, min_size=1, max_size=5), st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" \t,\r", " : ")]))
@settings(deadline=None)
def test_the_output_of_a_json_library_is_read_as_single_lines_are(many: list[dict[str, Any]], ascii_only: bool, separators: tuple[str, str]) -> None:
    texts = [json.dumps(one, ensure_ascii=ascii_only, separators=separators) for one in many]
    body = "\n".join(texts).encode("utf-8", "surrogatepass")
    assert outcome(body, ndjson.BYTES_PER_STEP) == outcome(body, 0)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(GOOD, id="the least"),
        pytest.param(b'{"channel": "a", "data": "x"}\r', id="spaces and CR"),
        pytest.param(b'{"channel":"a","data":"x","event":"e"}', id="a type"),
        pytest.param(b'{"channel":"a","data":"x","event":null,"retry":5}', id="a retry"),
        pytest.param(b'{"channel":"a","data":"{\\"k\\":\\"a\\\\\\\\b\\\\n\\"}"}', id="JSON in a string"),
        pytest.param(b'{"channel":"a","data":{"k":["\\"",2.5,null]}}', id="an object"),
        pytest.param('{"channel":"a","data":"é€😀"}'.encode(), id="UTF-8"),
        pytest.param(b'{"channel":"a","data":"\\u00e9\\ud83d\\ude00"}', id="escapes"),
    ],
)
@pytest.mark.parametrize("after", [b"", b"\n", b"\n\n"])
def test_the_usual_lines_are_read_at_once(line: bytes, after: bytes) -> None:
    body = b"\n".join([line, GOOD, line]) + after
    with patch.object(ndjson, "_line_by_line", side_effect=AssertionError("one by one")):
        events = batch(body, max_events=3, max_event_bytes=64)
    assert len(events) == 3 and events[1] == Event("a", "x")


def test_a_very_long_line_is_read_only_once() -> None:
    long = b'{"channel":"a","data":"%s"}' % (b"x" * ndjson.BYTES_PER_STEP)
    with patch.object(ndjson, "_line_by_line", wraps=ndjson._line_by_line) as one_by_one:
        with patch.object(ndjson, "_decode", wraps=ndjson._decode) as at_once:
            events = batch(b"\n".join([long, GOOD, GOOD, long, GOOD]), max_events=5, max_event_bytes=100_000)
    assert [len(event.data) for event in events] == [len(long) - 25, 1, 1, len(long) - 25, 1]
    assert [call.args[0] for call in one_by_one.call_args_list] == [long, long]
    assert at_once.call_count == 2


@pytest.mark.parametrize("last", [pytest.param(b"", id="at once"), pytest.param(b" ", id="line by line")])
def test_the_event_loop_gets_a_turn_every_few_hundred_lines(last: bytes) -> None:
    lines = [GOOD, last] * 10_000
    body = b"\n".join(lines) if last else b"\n".join([GOOD] * 20_000)
    turns: list[int] = []
    with patch.object(ndjson, "breathe", lambda: turns.append(1)):
        assert len(batch(body, max_events=20_000, max_event_bytes=64)) == (10_000 if last else 20_000)
    most = ndjson.LINES_PER_STEP if last else ndjson.BYTES_PER_STEP // len(GOOD)
    assert len(turns) >= 20_000 // most - 1
