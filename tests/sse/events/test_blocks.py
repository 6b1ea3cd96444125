"""Our parser of event streams reads what the tests' own parser reads, however the bytes arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sse.events.blocks import Blocks
from tests.support.sse_parser import EventParser

LINES = st.sampled_from(["data: a", "data:", "data:  b", "data", "id: 1-0", "id: x\0", "id", "event: t", "event:", "retry: 5", "retry: x", ": c", "", "other: x", "data: \u2028\ufeff", "\ufeffdata: bom"])  # fmt: skip
STREAMS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=12)


@given(STREAMS, st.lists(st.integers(0, 80), max_size=6))
def test_the_parsers_agree(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    octets = "".join(line + end for line, end in lines).encode()
    bounds = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    blocks, oracle = Blocks(), EventParser()
    found = [block for begin, end in zip(bounds, bounds[1:], strict=False) for block in blocks.feed(octets[begin:end])]
    expected = [(block.id, block.event or None, block.data, block.retry) for block in oracle.feed(octets)]
    assert [tuple(block) for block in found] == [block for block in expected if block != (None, None, None, None)]
