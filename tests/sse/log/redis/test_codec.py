"""Entries that are decoded by column give exactly what they give one by one."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from sse.events.trace import Trace
from sse.log.redis import codec

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USUAL = [b"c", b"a", b"d", b"1"]
TYPED = [b"c", b"b", b"d", "zwölf".encode(), b"e", b"x", b"r", b""]

ids = st.sampled_from([b"5-0", b"5-1", b"7-12", b"5-9999999", b"5", b"x-1", b"", b"1763900000000-1048575"])
rows = st.sampled_from(
    [
        USUAL,
        TYPED,
        [b"c", b"b", b"d", b"", b"e", b"", b"r", b""],
        [b"c", b"b", b"d", b"2", b"e", b"x", b"r", b"500"],
        [b"c", b"b", b"d", b"2", b"e", b"", b"r " + PARENT + b" 3", b""],
        [b"c", b"\xff", b"d", b"2"],
        [b"c", b"b", b"d", b"\xff"],
        [b"x", b"b", b"d", b"2"],
        [b"c", b"b", b"x", b"2"],
        [b"c", b"b"],
        [],
    ]
)
usual_ids = st.builds(lambda ms, n: b"%d-%d" % (ms, n), st.integers(1, 10**13), st.integers(0, 3))
usual = st.lists(st.tuples(usual_ids, st.sampled_from([USUAL, TYPED])), min_size=codec.FEW, max_size=12)


@given(st.lists(st.tuples(ids, rows), max_size=12) | usual)
@example([])
@example([(b"5-1", USUAL)] * 3 + [(b"5", USUAL)])
def test_the_columns_give_what_the_rows_give(entries: list[tuple[bytes, list[bytes]]]) -> None:
    traces, expected = list[Trace](), list[Trace]()
    records = codec.decode(entries, traces)
    with patch.object(codec, "_decode_usual", return_value=None):
        assert records == codec.decode(entries, expected)
    assert traces == expected


@given(usual)
def test_usual_entries_are_decoded_by_column(entries: list[tuple[bytes, list[bytes]]]) -> None:
    assert codec._decode_usual(entries) == codec.decode(entries)


def test_records_are_records() -> None:
    (record, *_) = codec.decode([(b"5-1", TYPED)] * codec.FEW)
    assert record == (5 << 20 | 1, "b", "x", None, "zwölf") and record.data == "zwölf"
