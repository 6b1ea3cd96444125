"""Whatever goes in comes out of parsers that others wrote: httpx-sse, sseclient-py, eventsource-parser (JS).

Each parser is fed raw bytes through its public face. What they are known to do otherwise than the standard is
in `Parser`; everything else here holds for all three.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sseclient import SSEClient

from sse.events.model import MAX_POSITION, MAX_RETRY_MS, Event, InvalidEvent, Record, format_id, make_position
from sse.events.wire import (
    comment_block,
    encode_block,
    encode_frame,
    heartbeat_block,
    opening_block,
    reset_block,
    retry_block,
)

JS = Path(__file__).resolve().parents[2] / "js"
ANSWER_WITHIN = 20.0  # seconds for one answer of the Node process; it takes milliseconds
P = make_position(1732345678901, 7)

Stream = Sequence[bytes]  # the chunks in which a stream arrives


class Seen(NamedTuple):
    """What a parser made of one stream. An id is None if the parser got none."""

    events: list[tuple[str, str, str | None]]  # type, data, id
    retries: list[int]
    errors: list[str]


class Parser(NamedTuple):
    """parse: streams in, what was seen of each out.

    keeps_id: an event without an id has the one before it, as in a browser. retry_alone: a `retry` is reported
    even when its block has no data.
    """

    parse: Callable[[Sequence[Stream]], list[Seen]]
    keeps_id: bool = False
    retry_alone: bool = True


def _httpx_sse(streams: Sequence[Stream]) -> list[Seen]:
    def one(chunks: Stream) -> Seen:
        headers = {"content-type": "text/event-stream"}
        seen = list(EventSource(httpx.Response(200, headers=headers, content=iter(chunks))).iter_sse())
        retries = [each.retry for each in seen if each.retry is not None]
        return Seen([(each.event, each.data, each.id) for each in seen], retries, [])

    return [one(chunks) for chunks in streams]


def _sseclient_py(streams: Sequence[Stream]) -> list[Seen]:
    def one(chunks: Stream) -> Seen:
        seen = list(SSEClient(iter(chunks)).events())
        retries = [int(each.retry) for each in seen if each.retry is not None]
        return Seen([(each.event, each.data, each.id) for each in seen], retries, [])

    return [one(chunks) for chunks in streams]


class NodeParser:
    """tests/js/parse_events.mjs as a process that answers each line with a line."""

    def __init__(self, node: str) -> None:
        command = [node, str(JS / "parse_events.mjs")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def __call__(self, streams: Sequence[Stream]) -> list[Seen]:
        request = [[base64.b64encode(chunk).decode() for chunk in chunks] for chunks in streams]
        assert self._process.stdin is not None
        unsent = memoryview(json.dumps(request).encode() + b"\n")
        while unsent:  # a write to Popen's unbuffered pipe may be partial
            unsent = unsent[self._process.stdin.write(unsent) :]
        answer = json.loads(self._read_line(time.monotonic() + ANSWER_WITHIN))
        return [
            Seen([(kind, data, id) for kind, data, id in seen["events"]], seen["retries"], seen["errors"])
            for seen in answer
        ]

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._process.stdout.fileno(), 1 << 20) if ready else b""
            assert part, "node ended" if ready else f"no answer from node within {ANSWER_WITHIN} s"
            line += part
        return line

    def close(self) -> None:
        with self._process as process:  # closes the pipes and waits
            process.kill()


def _node_or_skip() -> str:
    node = shutil.which("node")
    if node is None or not (JS / "node_modules" / "eventsource-parser").is_dir():
        get_it = "needs eventsource-parser: Node.js 18 or newer with npm, then npm ci --prefix tests/js"
        if os.environ.get("CI", "").lower() == "true":  # if CI skipped it, nobody would ever run it
            pytest.fail(get_it, pytrace=False)
        pytest.skip(get_it)
    return node


@pytest.fixture(scope="module", params=["httpx-sse", "sseclient-py", "eventsource-parser"])
def parser(request: pytest.FixtureRequest) -> Iterator[Parser]:
    if request.param == "httpx-sse":
        yield Parser(_httpx_sse, keeps_id=True)
    elif request.param == "sseclient-py":
        yield Parser(_sseclient_py, retry_alone=False)
    else:
        node = NodeParser(_node_or_skip())
        try:
            yield Parser(node)
        finally:
            node.close()


# --- What goes in -------------------------------------------------------------------------------------------

# Characters that some program takes for a line end, a separator, an end of text or a byte order mark.
PITFALLS = "\r\n\0: \t\ufeff\u2028\u2029\x0b\x0c\x1c\x1d\x1e\x85"
characters = st.sampled_from(PITFALLS) | st.characters(codec="utf-8")
texts = st.text(characters, max_size=40)
lines = st.text(characters.filter(lambda c: c not in "\r\n\0"), min_size=1, max_size=20)

# Values that try to end their field and begin another.
pieces = st.sampled_from(["\n", "\r", "\r\n", "\0", ":", "id: 9-9", "event: bad", "data: bad", "retry: 1"])
hostile = st.lists(pieces | texts, min_size=1, max_size=8).map("".join)

records = st.builds(
    Record,
    position=st.integers(0, MAX_POSITION),
    channel=st.just("orders"),
    event=st.none() | lines,
    retry=st.none() | st.integers(0, MAX_RETRY_MS),
    data=texts | hostile,
)

budget = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def plain(data: str) -> Record:
    """Return a record with nothing but data."""
    return Record(P + 1, "orders", None, None, data)


def normalized(data: str) -> str:
    """Return data as a client gets it by §9.2.5: every line end is a LF."""
    return data.replace("\r\n", "\n").replace("\r", "\n")


def expected(sent: Sequence[Record]) -> Seen:
    events = [(r.event or "message", normalized(r.data), format_id(r.position)) for r in sent]
    return Seen(events, [r.retry for r in sent if r.retry is not None], [])  # type: ignore[arg-type]


# --- What comes out -----------------------------------------------------------------------------------------


@given(sent=st.lists(records, max_size=6))
@example(sent=[plain(data) for data in ("", " ", "\n", "a\r", "\0", "\ufeff", ":", "a\u2028b", "data")])
@example(sent=[Record(0, "orders", " ", 0, "\r\n\n\r"), Record(P, "orders", "message", MAX_RETRY_MS, "data")])
@budget
def test_what_is_published_is_what_a_client_receives(parser: Parser, sent: list[Record]) -> None:
    for record in sent:
        Event(record.channel, record.data, record.event, record.retry)  # `Event` accepts all of it
    assert parser.parse([[b"".join(encode_frame(record).wire for record in sent)]]) == [expected(sent)]


@given(sent=st.lists(records, min_size=1, max_size=2))
@example(sent=[Record(P, "orders", "\u00fcber", 5, "\u20ac\r\n\U0001f30a\n"), plain("")])
@settings(budget, max_examples=15)
def test_a_client_receives_the_same_wherever_the_bytes_are_split(parser: Parser, sent: list[Record]) -> None:
    wire = b"".join(encode_frame(record).wire for record in sent)
    streams = [[wire[:cut], wire[cut:]] for cut in range(1, len(wire))]
    streams.append([wire[i : i + 1] for i in range(len(wire))])
    assert parser.parse(streams) == [expected(sent)] * len(streams)


@given(field=st.sampled_from(["channel", "event", "data"]), value=hostile)
@budget
def test_no_value_of_a_published_event_escapes_from_its_field(parser: Parser, field: str, value: str) -> None:
    fields = {"channel": "orders", "event": "created", "data": "a", field: value}
    try:
        event = Event(fields["channel"], fields["data"], fields["event"])
    except InvalidEvent as error:
        assert error.field == field
        return
    sent = [Record(P, event.channel, event.event, event.retry, event.data), plain("b")]
    assert parser.parse([[encode_frame(record).wire for record in sent]]) == [expected(sent)]


@given(event=hostile, data=hostile)
@budget
def test_an_unchecked_record_is_one_event_with_one_id(parser: Parser, event: str, data: str) -> None:
    frames = [encode_frame(Record(P, "orders", event, None, data)), encode_frame(plain("b"))]
    [seen] = parser.parse([[frame.wire for frame in frames]])
    kind = "".join("\ufffd" if c in "\r\n\0" else c for c in event)
    first = Record(P, "orders", kind, None, data)
    assert seen == expected([first, plain("b")])


@given(field=st.sampled_from(["id", "event", "data"]), value=hostile)
@budget
def test_no_value_of_any_block_escapes_from_its_field(parser: Parser, field: str, value: str) -> None:
    fields = {"id": "1", "event": "created", "data": "a", field: value}
    try:
        block = encode_block(fields["data"], event=fields["event"], id=fields["id"])
    except InvalidEvent as error:
        assert error.field == field
        return
    [seen] = parser.parse([[block, encode_block("b", id="2")]])
    first = (fields["event"], normalized(fields["data"]), fields["id"])
    assert seen == Seen([first, ("message", "b", "2")], [], [])


@given(text=hostile)
@budget
def test_no_comment_becomes_an_event(parser: Parser, text: str) -> None:
    [seen] = parser.parse([[comment_block(text), encode_block("a", id="1")]])
    assert seen == Seen([("message", "a", "1")], [], [])


@given(requested=st.text(max_size=100) | hostile)
@budget
def test_a_reset_is_one_event_whatever_cursor_was_sent(parser: Parser, requested: str) -> None:
    [seen] = parser.parse([[reset_block("malformed", requested, None, P, P), encode_block("a", id="1")]])
    (kind, data, id), following = seen.events
    assert (kind, id, following) == ("stream-reset", format_id(P), ("message", "a", "1"))
    assert json.loads(data)["reason"] == "malformed" and not seen.retries and not seen.errors


def test_an_opening_is_one_event_with_the_cursor_and_the_retry(parser: Parser) -> None:
    [seen] = parser.parse([[opening_block(P, 2000, 1732345679000), encode_block("a")]])
    kept = format_id(P) if parser.keeps_id else None
    assert seen == Seen([("heartbeat", "1732345679000", format_id(P)), ("message", "a", kept)], [2000], [])


def test_every_block_that_has_an_id_has_data() -> None:
    frame = encode_frame(Record(P, "orders", None, 5, ""))
    for block in (frame.wire, opening_block(P, 5, 0), heartbeat_block(P, 0), reset_block("expired", "", None, P, P)):
        assert b"\nid: " in b"\n" + block and b"\ndata: " in block


def test_a_client_receives_a_whole_stream_from_opening_to_clean_end(parser: Parser) -> None:
    chunks = [
        comment_block(),
        opening_block(P, 2000, 1732345678902),
        encode_frame(Record(P + 1, "orders", "created", None, '{"item":1}')).wire,
        heartbeat_block(P + 2, 1732345679000),
        retry_block(750),
    ]
    [seen] = parser.parse([chunks])
    assert [event for event in seen.events if event[1]] == [
        ("heartbeat", "1732345678902", format_id(P)),
        ("created", '{"item":1}', format_id(P + 1)),
        ("heartbeat", "1732345679000", format_id(P + 2)),
    ]
    assert seen.retries == ([2000, 750] if parser.retry_alone else [2000])
    assert not seen.errors
