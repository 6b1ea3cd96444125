"""W3C Trace Context: which traceparents are read, and which are ignored."""

from __future__ import annotations

import pytest

from sse.events.trace import Trace, read_mark, sampled

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
USUAL = f"00-{TRACE}-{PARENT}-01"

CARRIED = [
    pytest.param(USUAL, id="the specification's example"),
    pytest.param(f"00-{TRACE}-{PARENT}-03", id="another flag set as well"),
    pytest.param(f"00-{TRACE}-{PARENT}-ff", id="all flags"),
    pytest.param(f"01-{TRACE}-{PARENT}-01", id="a version to come"),
    pytest.param(f"fe-{TRACE}-{PARENT}-09-what-comes-then", id="a version to come, with more behind a dash"),
]

IGNORED = [
    pytest.param(None, id="none"),
    pytest.param("", id="empty"),
    pytest.param(f"00-{TRACE}-{PARENT}-00", id="not sampled"),
    pytest.param(f"00-{TRACE}-{PARENT}-02", id="another flag only"),
    pytest.param(f"ff-{TRACE}-{PARENT}-01", id="the forbidden version"),
    pytest.param(f"00-{TRACE}-{PARENT}-01-more", id="version 00 with more"),
    pytest.param(f"00-{TRACE}-{PARENT}-01-", id="version 00 with a dash more"),
    pytest.param(f"01-{TRACE}-{PARENT}-01.more", id="more without a dash"),
    pytest.param(f"01-{TRACE}-{PARENT}-011", id="flags of three digits"),
    pytest.param(f"00-{'0' * 32}-{PARENT}-01", id="a trace id of zeros"),
    pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="a parent id of zeros"),
    pytest.param(USUAL.upper(), id="capitals"),
    pytest.param(f"00-{TRACE[:-1]}-{PARENT}-01", id="a trace id that is short"),
    pytest.param(f"00-{TRACE}-{PARENT}0-01", id="a parent id that is long"),
    pytest.param(f"00-{TRACE}-{PARENT}-1", id="one digit of flags"),
    pytest.param(f"00-{TRACE[:-1]}g-{PARENT}-01", id="a letter that is no hex"),
    pytest.param(f"00-{TRACE[:-1]}\u0663-{PARENT}-01", id="a digit of another script"),
    pytest.param(f" {USUAL}", id="a blank before"),
    pytest.param(f"{USUAL}\n", id="a line end behind"),
    pytest.param(f"{USUAL},{USUAL}", id="two of them, joined by the server"),
    pytest.param(USUAL.replace("-", "_"), id="other separators"),
]


@pytest.mark.parametrize("header", CARRIED)
def test_a_sampled_trace_is_carried_in_the_form_of_version_00(header: str) -> None:
    assert sampled(header) == USUAL


@pytest.mark.parametrize("header", IGNORED)
def test_anything_else_is_ignored(header: str | None) -> None:
    assert sampled(header) is None


def test_only_a_well_formed_mark_is_read() -> None:
    assert read_mark(f"r {USUAL} 12".encode(), 100) == Trace(100, 111, USUAL)
    for foreign in (
        b"r",
        b"",
        b"x",
        b"\xff" * 60,
        f"r {USUAL}".encode(),
        f"r {USUAL} -1".encode(),
        b"r " + b"\xff" * 55 + b" 1",
    ):
        assert read_mark(foreign, 100) is None
