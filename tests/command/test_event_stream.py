"""The command's parser of event streams reads what the tests' own parser reads, however the bytes arrive."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

from hypothesis import given
from hypothesis import strategies as st

from tests.support.server import ROOT
from tests.support.sse_parser import EventParser

# By its file: a process that has `sse` must not import `headwater`.
_spec = spec_from_file_location("event_stream", ROOT / "headwater" / "command" / "event_stream.py")
assert _spec is not None and _spec.loader is not None
event_stream = module_from_spec(_spec)
_spec.loader.exec_module(event_stream)

LINES = st.sampled_from(["data: a", "data:", "data:  b", "data", "id: 1-0", "id: x\0", "id", "event: t", "event:", "retry: 5", "retry: x", ": c", "", "other: x", "data: \u2028\ufeff", "\ufeffdata: bom"])  # fmt: skip
STREAMS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=12)


@given(STREAMS, st.lists(st.integers(0, 80), max_size=6))
def test_the_parsers_agree(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    octets = "".join(line + end for line, end in lines).encode()
    bounds = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    blocks, oracle = event_stream.Blocks(), EventParser()
    found = [block for begin, end in zip(bounds, bounds[1:], strict=False) for block in blocks.feed(octets[begin:end])]
    expected = [(block.id, block.event or None, block.data, block.retry) for block in oracle.feed(octets)]
    assert [tuple(block) for block in found] == [block for block in expected if block != (None, None, None, None)]
