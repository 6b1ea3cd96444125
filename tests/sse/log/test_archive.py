"""The form of an export: what is written is read, and what is damaged is refused with the line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.events.model import Record, make_position
from sse.log.archive import BadArchive, Closed, End, Erased, Head, Note, Reader, Torn, Writer, record_line

HEAD, END = Head(0, 1 << 20, 0, 0, 0), End(99 << 20, 0, 0)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
RECORDS = st.lists(
    st.builds(
        Record,
        st.integers(2 << 20, 98 << 20),
        st.from_regex(r"_?[A-Za-z0-9][A-Za-z0-9._:-]{0,8}", fullmatch=True),
        st.none() | st.from_regex(r"[^\r\n\0]{1,9}", fullmatch=True).filter(lambda text: text.isprintable()),
        st.none() | st.integers(0, 2**31 - 1),
        TEXTS,
    ),
    unique_by=lambda record: record.position,
).map(sorted)


def written(*parts: Callable[[Writer], object]) -> bytes:
    out = io.BytesIO()
    writer = Writer(out.write)
    for part in parts:
        part(writer)
    return out.getvalue()


def part(*records: Record, head: Head = HEAD, end: End | None = END) -> bytes:
    def write(writer: Writer) -> None:
        writer.head(head)
        writer.records(list(records))
        if end is not None:
            writer.end(end)

    return written(write)


def record(n: int, data: str = "x") -> Record:
    return Record(make_position(n), "a", None, None, data)


def items(octets: bytes) -> list[object]:
    return list(Reader(io.BytesIO(octets)).items())


@given(RECORDS, st.dictionaries(st.sampled_from("abc"), st.integers(1, 1 << 62)), TEXTS)
def test_what_is_written_is_read(records: list[Record], closed: dict[str, int], value: str) -> None:
    def write(writer: Writer) -> None:
        writer.head(HEAD)
        writer.records(records)
        writer.closed(closed)
        writer.erased("e")
        writer.note(Note("revoked", "alice", value))
        writer.end(END)

    ends = [Closed(channel, position) for channel, position in closed.items()]
    assert items(written(write)) == [HEAD, *records, *ends, Erased("e"), Note("revoked", "alice", value), END]


@given(RECORDS)
def test_a_record_is_written_as_json_does(records: list[Record]) -> None:
    for position, channel, event, retry, data in records:
        line = record_line(Record(position, channel, event, retry, data))
        fields = {"id": json.loads(line)["id"], "channel": channel, "event": event, "retry": retry, "data": data}
        given = {name: value for name, value in fields.items() if value is not None}
        assert line == json.dumps(given, ensure_ascii=False, separators=(",", ":")) and "\n" not in line


def test_parts_follow_each_other_and_one_may_repeat_what_the_one_before_it_had() -> None:
    one, two = part(record(2), record(3), end=End(make_position(4), 0, 0)), part(record(5), head=HEAD._replace(since=make_position(4)))
    assert len(items(one + two)) == 7
    assert len(items(one + part(record(3), record(5)))) == 8
    assert len(items(part(record(2), end=None) + part(record(3), head=HEAD._replace(since=make_position(2))))) == 5


def test_a_part_that_follows_a_torn_line_is_read() -> None:
    torn = part(record(2), record(3), end=None)[:-9]
    assert [type(item) for item in items(torn + part(record(3), head=HEAD._replace(since=make_position(2))))] == [Head, Record, Head, Record, End]


def test_the_beginning_of_a_part_inside_an_events_data_is_data() -> None:
    data = '{"headwater":"log","format":1}\n{"headwater":"log",'
    assert items(part(record(2, data)))[1] == record(2, data)


WHOLE = part(record(2), record(3))
LINES = WHOLE.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        pytest.param(b"", "the export is empty", id="nothing"),
        pytest.param(b"SQLite format 3\0\n", "it is a SQLite file", id="something else"),
        pytest.param(b'{"a":1}\n', "line 1: an export of Headwater begins with", id="other JSON"),
        pytest.param(b"[1]\n", "line 1 is not a line of an export", id="a list"),
        pytest.param(LINES[0].replace(b'"format":1', b'"format":2'), "line 1: has format 2", id="a later format"),
        pytest.param(LINES[0].replace(b'"since":"0-0",', b""), "line 1: 'since' is missing", id="a head without a field"),
        pytest.param(LINES[0].replace(b'"since":"0-0"', b'"since":7'), "line 1: 7 is not an id", id="a number for an id"),
        pytest.param(WHOLE.replace(b'"x"', b'"y"', 1), "line 4: the part was damaged", id="a changed letter"),
        pytest.param(b"".join([*LINES[:1], *LINES[2:]]), "line 3: the part has 1 records, its end says 2", id="a lost line"),
        pytest.param(b"".join([LINES[0], LINES[2], LINES[1], LINES[3]]), "line 3: 2-0 is not above", id="another order"),
        pytest.param(LINES[0] + LINES[1] + LINES[1], "line 3: 2-0 is not above", id="a record twice"),
        pytest.param(LINES[0] + LINES[1].replace(b'"a"', b'"a b"'), "line 2: channel: must be", id="a wrong channel"),
        pytest.param(LINES[0] + LINES[1].replace(b'"x"', b"5"), "line 2: data: must be str", id="data that is no text"),
        pytest.param(LINES[0] + LINES[1].replace(b'"x"', b'"\\ud800"'), "line 2: data: character 0 is a lone surrogate", id="half a pair"),
        pytest.param(LINES[0] + b'{"what":1}\n', "line 2: is not a line of an export", id="an unknown line"),
        pytest.param(LINES[0] + b'{"x":\n', "line 2 is not a line of an export", id="broken JSON"),
        pytest.param(LINES[0] + b'\xff\n', "line 2 is not a line of an export", id="not UTF-8"),
        pytest.param(WHOLE + LINES[1], "line 5: something follows an end", id="a record behind the end"),
        pytest.param(WHOLE + part(head=HEAD._replace(since=make_position(100))), "line 5: this part begins after 100-0, but what is before it ends at 99-0", id="a missing part"),
        pytest.param(WHOLE[:-1], "line 4 ends in the middle", id="cut off"),
    ],
)
def test_what_is_damaged_is_refused_with_its_line(octets: bytes, said: str) -> None:
    with pytest.raises(BadArchive) as caught:
        items(octets)
    assert str(caught.value).startswith(said)


def test_a_torn_archive_is_told_from_a_damaged_one_and_it_is_known_where_it_is_whole() -> None:
    reader = Reader(io.BytesIO(WHOLE[:-20]))
    with pytest.raises(Torn):
        list(reader.items())
    assert (reader.size, reader.position, reader.whole) == (len(b"".join(LINES[:3])), make_position(3), False)


def test_a_line_that_never_ends_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sse.log.archive.MOST_LINE_BYTES", 1000)
    file = io.BytesIO(b"x" * 100_000)
    with pytest.raises(BadArchive):
        list(Reader(file).items())
    assert file.tell() == 1000
