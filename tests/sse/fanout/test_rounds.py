"""Rounds of passes: events that arrive during one round share one chunk in the next."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from sse.events.model import Event
from sse.fanout import passes
from tests.sse.worker_parts import Parts, Stepped
from tests.support.wait import eventually


class Site(Stepped):
    """Live streams whose chunks are counted."""

    def __init__(self, closing: ExitStack, streams: int) -> None:
        super().__init__(closing)
        self.ours = [self.open(self.hub.window.position).sock for _ in range(streams)]
        self.chunks()

    def chunks(self) -> list[bytes]:
        """Return what each socket received since the last call: one write or several; each chunk states its size."""
        got = []
        for sock in self.ours:
            try:
                got.append(sock.recv(1_000_000))
            except BlockingIOError:
                got.append(b"")
        return got


def test_events_that_arrive_during_a_pass_are_joined_into_the_next(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(closing, 40)
    monkeypatch.setattr(passes, "PASS_SLICE", 0.0)  # let the loop run at every look at the clock
    monkeypatch.setattr(passes, "CLOCK_EVERY", 8)
    come = iter(range(1000))
    monkeypatch.setattr(passes, "breathe", lambda: site.append(f"later {next(come)}"))
    site.append("first")
    site.fanout.passes.run()
    assert all(got.count(b"data: ") == 1 and b"data: first\n" in got for got in site.chunks())
    later = next(come)
    assert later >= 5
    monkeypatch.setattr(passes, "breathe", lambda: None)
    site.fanout.passes.run()
    for got in site.chunks():
        assert got.count(b"data: later ") == later
        size, _, body = got.partition(b"\r\n")
        assert len(body) == int(size, 16) + 2, "more than one chunk"


def test_the_log_is_not_read_for_each_event_of_a_gap(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(closing, 4)
    slept = []
    monkeypatch.setattr(passes.gevent, "sleep", slept.append)
    monkeypatch.setattr(passes, "PASS_SLICE", 0.0)
    monkeypatch.setattr(passes, "CLOCK_EVERY", 4)

    def comes_once() -> None:
        if not site.fanout.passes._work.is_set():
            site.append("more")

    monkeypatch.setattr(passes, "breathe", comes_once)
    site.append("first")
    site.fanout.passes.run()
    assert not slept  # work during one round may be chance
    before = time.monotonic()
    site.fanout.passes.run()
    (gap,) = slept
    assert 0 < gap <= passes.GAP_MOST
    assert site.hub.busy_until() == pytest.approx(before + gap - passes.READ_AHEAD, abs=0.05)
    # Without load there is no gap, and the log is read at once.
    slept.clear()
    monkeypatch.setattr(passes, "breathe", lambda: None)
    site.fanout.passes.run()
    site.append("later")
    site.fanout.passes.run()
    assert not slept


def test_the_tailer_waits_until_the_gap_ends_and_then_reads_all_at_once(closing: ExitStack) -> None:
    parts = closing.enter_context(Parts("memory:"))
    dispatched: list[int] = []
    dispatch = parts.hub.dispatch
    parts.hub.dispatch = lambda records: (dispatched.append(len(records)), dispatch(records))[1]  # type: ignore[method-assign]
    until = time.monotonic() + 0.6
    parts.hub.busy_until = lambda: until  # type: ignore[method-assign]
    last = parts.log.append([Event("a", "first")])[-1]
    eventually(lambda: parts.hub.window.position >= last, 5)  # the tailer already slept in the log
    for number in range(20):
        last = parts.log.append([Event("a", f"more {number}")])[-1]
    eventually(lambda: parts.hub.window.position >= last, 5)
    assert time.monotonic() >= until
    assert dispatched[0] == 1 and max(dispatched) >= 19


def test_a_pass_observes_the_age_of_each_event_once_for_all_streams_of_its_group(closing: ExitStack) -> None:
    site = Site(closing, 3)
    delivery = site.hub.stats.delivery
    began = time.time()
    site.append("one", "two")
    site.fanout.passes.run()
    assert sum(delivery.counts) == 2
    assert 0 <= delivery.total <= 2 * (time.time() - began + 0.001)
    site.fanout.passes.wake()
    site.fanout.passes.run()
    assert sum(delivery.counts) == 2, "a round without events observes nothing"
