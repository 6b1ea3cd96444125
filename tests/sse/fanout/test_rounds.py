"""Rounds of passes: events that arrive during one round share one chunk in the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, count, repeat

import pytest

from sse.events.model import Event
from sse.fanout import passes
from sse.fanout.passes import Passes
from sse.streams.group import Group
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


class Clock:
    """A core as a gap sees it: time passes while the passes sleep, and others use a share of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 0.0
        self.shares: Iterator[float] = repeat(0.0)  # of the core, one for each sleep
        self.reading: list[bool] = []  # for each sleep: may the tailer read?
        self.passes: Passes | None = None
        monkeypatch.setattr(passes, "monotonic", lambda: self.now)
        monkeypatch.setattr(passes, "process_time", lambda: self.used)
        monkeypatch.setattr(passes.gevent, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0 and self.passes is not None
        self.reading.append(self.passes.reading.is_set())
        self.now += seconds
        self.used += seconds * next(self.shares)


class Paced(Site):
    """Rounds under a clock of their own: each takes 4 ms, and during each an event arrives."""

    TOOK = 0.004

    def __init__(self, closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(closing, 4)
        self.clock = Clock(monkeypatch)
        self.clock.passes = self.fanout.passes
        self.arriving = True
        monkeypatch.setattr(self.fanout.passes, "_pass", self.write)
        ticks = count()
        monkeypatch.setattr(passes, "perf_counter", lambda: self.clock.now + 1e-9 * next(ticks))

    def write(self, group: Group) -> None:
        self.clock.now += self.TOOK
        group.pending = []
        if self.arriving:
            self.append("more")

    def gap(self) -> float:
        """Run one round; return how long the gap after it was, seconds."""
        began = self.clock.now
        self.fanout.passes.run()
        return self.clock.now - began - self.TOOK


def test_only_events_during_two_rounds_in_a_row_make_a_gap(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Paced(closing, monkeypatch)
    site.clock.shares = repeat(1.0)
    site.append("first")
    assert site.gap() == 0  # work during one round may be chance
    assert site.gap() > 0
    site.arriving = False
    assert site.gap() == 0
    site.append("later")
    assert site.gap() == 0


def test_a_core_that_is_busy_from_round_to_round_makes_a_gap(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    # A round of 100 streams takes less than PASS_SLICE, so no event arrives during it, however many are on their way.
    site = Paced(closing, monkeypatch)
    site.arriving = False
    site.clock.shares = repeat(1.0)

    def gap(used: float) -> float:
        """Run a round 1 ms after the last one; ``used``: share of the core from that one's end to this one's."""
        site.append("one")
        site.clock.now += 0.001
        site.clock.used += used * (0.001 + site.TOOK)
        return site.gap()

    assert gap(1.0) == 0
    assert gap(0.8) == 0
    assert gap(0.95) == 0  # once may be chance
    assert gap(0.95) == pytest.approx(3 * site.TOOK, abs=1e-6)
    assert gap(0.0) == pytest.approx(0, abs=1e-6)  # also if others used the whole gap


@pytest.mark.parametrize(
    ("took", "shares", "gap"),
    [
        pytest.param(0.004, repeat(1.0), 0.012, id="others need the core: three times the round"),
        pytest.param(0.020, repeat(1.0), passes.GAP_MOST, id="… and 25 ms at most"),
        pytest.param(0.004, repeat(0.25), 0.012, id="a publisher that pauses between its requests needs it, too"),
        pytest.param(0.004, repeat(0.0), passes.GAP_STEP, id="nobody does: one step"),
        pytest.param(0.020, repeat(0.1), passes.GAP_STEP, id="hardly anybody does: one step"),
        pytest.param(0.004, chain([1.0] * 4, repeat(0.0)), 5 * passes.GAP_STEP, id="until nobody needs it any more"),
        pytest.param(0.0003, repeat(1.0), 0, id="none that would join nothing"),
    ],
)
def test_a_gap_lasts_while_others_use_the_core(
    took: float, shares: Iterator[float], gap: float, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Paced(closing, monkeypatch)
    site.TOOK = took
    site.append("first")
    site.gap()
    site.clock.shares = shares
    assert site.gap() == pytest.approx(gap, abs=1e-6)
    assert site.fanout.passes.reading.is_set()


def test_the_tailer_reads_shortly_before_a_gap_ends(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Paced(closing, monkeypatch)
    site.clock.shares = repeat(1.0)
    site.append("first")
    site.gap()
    before = site.clock.now
    site.gap()
    assert site.clock.reading == [False] * (len(site.clock.reading) - 1) + [True]
    assert len(site.clock.reading) > 2
    assert site.clock.now - before == pytest.approx(4 * site.TOOK, abs=1e-6)


def test_a_gap_that_fails_lets_the_tailer_read(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Paced(closing, monkeypatch)
    site.append("first")
    site.gap()

    def fail() -> float:
        raise RuntimeError("told to fail")

    monkeypatch.setattr(passes, "process_time", fail)
    with pytest.raises(RuntimeError):
        site.gap()
    assert site.fanout.passes.reading.is_set()


def test_the_tailer_waits_until_the_gap_ends_and_then_reads_all_at_once(closing: ExitStack) -> None:
    parts = closing.enter_context(Parts("memory:"))
    dispatched: list[int] = []
    dispatch = parts.hub.dispatch
    parts.hub.dispatch = lambda records: (dispatched.append(len(records)), dispatch(records))[1]  # type: ignore[method-assign]
    over = threading.Event()
    parts.hub.await_round = over.wait  # type: ignore[method-assign, assignment]
    last = parts.log.append([Event("a", "first")])[-1]
    eventually(lambda: parts.hub.window.position >= last, 5)  # the tailer already slept in the log
    for number in range(20):
        last = parts.log.append([Event("a", f"more {number}")])[-1]
    time.sleep(0.1)
    assert dispatched == [1]
    over.set()
    eventually(lambda: parts.hub.window.position >= last, 5)
    assert dispatched == [1, 20]


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
