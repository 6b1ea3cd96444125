"""The tailer over a scripted log: what it gives to the hub, what it logs, and what it survives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sse.events.model import Record, format_id
from sse.events.trace import Trace
from sse.log import Bounds, LogUnavailable
from sse.log.base import FOLLOW_CHARS, FOLLOW_RECORDS, Batch, LogReplaced
from sse.streams import tailer as tailer_module
from sse.streams.hub import RECORDS_PER_STEP
from sse.streams.tailer import WARMED_PER_STEP, Tailer
from sse.streams.window import Window
from tests.support.wait import eventually

Step = list[Record] | Exception


def records(first: int, last: int, data: str = "x") -> list[Record]:
    return [Record(position, "a", None, None, data) for position in range(first, last + 1)]


class FakeLog:
    """A log that yields the batches it is given, one after the other, across calls of `follow`."""

    notices_gaps = False

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.trimmed = self.latest = 0
        self.oldest: int | None = None
        self.held: list[Record] = []
        self.asked: list[int] = []  # the position of each call of `follow`
        self.looks = 0  # how often its bounds were asked for

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        self.asked.append(after)
        while not stop.is_set():
            if not self.steps:
                time.sleep(0.001)
                continue
            step = self.steps.pop(0)
            if isinstance(step, Exception):
                raise step
            yield step

    def bounds(self) -> Bounds:
        self.looks += 1
        return Bounds(self.oldest, max(self.latest, self.trimmed), self.trimmed, lost=1)

    def newest(self, channels: object, limit: int, max_bytes: int) -> list[Record]:
        return self.held


class FakeHub:
    """A hub that records what its tailer tells it."""

    def __init__(self) -> None:
        self.log: Any = FakeLog()
        self.settings: Any = type("Settings", (), {"sse_window_bytes": 10**6, "sse_retain_events": 10**6})
        self.window = Window(10**6)
        self.control: Any = self
        self.deliveries: Any = self
        self.retention: Any = self
        self.least: Callable[[], tuple[float, float]] = lambda: (10**6, 10**6)
        self.advanced = threading.Condition(threading.RLock())
        self.got: list[int] = []
        self.told: list[Any] = []
        self.failures: list[Exception] = []
        self.returns = self.returns_fail = 0
        self.obeyed: list[int] = []

    def call_back(self, records: list[Record]) -> None:
        self.obeyed += [record.position for record in records]

    def took(self, traces: list[Trace]) -> None:
        self.told.append(traces)

    def step(self, records: list[Record], begin: int) -> int:
        return min(begin + RECORDS_PER_STEP, len(records))

    def dispatch(self, records: list[Record]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        assert len(records) <= RECORDS_PER_STEP
        self.got += [record.position for record in records]
        self.window.position = records[-1].position

    def overtaken(self, trimmed: int) -> None:
        self.told.append(("overtaken", trimmed))

    def await_round(self) -> None:
        pass

    def warmed(self, window: Window) -> None:
        self.window.become(window)

    def back(self) -> None:
        self.returns += 1
        if self.returns_fail:
            self.returns_fail -= 1
            raise LogUnavailable("not yet")

    def replaced(self) -> None:
        self.told.append("replaced")
        if self.failures:
            raise self.failures.pop(0)


class Site:
    """A running tailer that tries again quickly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, closing: ExitStack) -> None:
        monkeypatch.setattr(tailer_module, "RETRY_FIRST", 0.01)
        monkeypatch.setattr(tailer_module, "RETRY_MOST", 0.02)
        self.hub = FakeHub()
        self.log: FakeLog = self.hub.log
        self._stop = threading.Event()
        self.tailer = Tailer(self.hub, self._stop)
        self._thread = threading.Thread(target=self.tailer.run, daemon=True)
        closing.callback(self.stop)
        self._thread.start()
        assert self.tailer.ready.wait(5)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def through(self, *steps: Step, failures: tuple[Exception, ...] = (), quiet: bool = True) -> None:
        """Let the log do these steps, and wait until the tailer has handled them.

        An empty batch follows; the tailer has handled all once it takes the next one.
        """
        self.hub.failures += failures
        self.log.steps += [*steps, [], []] if quiet else steps
        eventually(lambda: not self.log.steps and not self.hub.failures, 5, "the tailer does not go on")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, closing: ExitStack) -> Site:
    return Site(monkeypatch, closing)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_outage_is_logged_once_and_its_end_with_the_last_id_read(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    position = 1883239929437224960
    site.through(records(position, position))
    site.through(*[LogUnavailable("away")] * 3, records(position + 1, position + 1))
    assert lines(caplog) == [
        "the log cannot be followed, streams stay open: away",
        f"the log is followed again, after {format_id(position)}",
    ]
    assert site.hub.got == [position, position + 1]
    site.through(LogUnavailable("away again"))
    assert len(lines(caplog)) == 4
    assert site.hub.returns == 3, "at the start and after each outage"


def test_a_worker_is_not_ready_before_it_knows_what_control_records_said(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.hub.returns_fail = 2
    site.through(LogReplaced("another one"))
    eventually(site.tailer.ready.is_set, 5)
    assert site.hub.returns == 1 + 3
    site.hub.returns_fail = 2
    site.through(LogUnavailable("away"), [])
    eventually(lambda: site.hub.returns == 4 + 3, 5, "it is tried again until it has worked")


def test_a_failing_tailer_logs_it_once_and_goes_on(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.through(*[ZeroDivisionError("a bug")] * 3)
    site.through(records(1, 1), failures=(ValueError("another"),))
    site.through(records(2, 2))
    assert site.hub.got == [2]
    assert [line.partition(":")[0] for line in lines(caplog, logging.ERROR)] == [
        "the tailer failed, it starts again"
    ] * 2
    assert "a bug" in caplog.text and "Traceback" in caplog.text


def test_a_batch_that_the_hub_fails_on_does_not_count_as_an_answer_of_the_log(site: Site) -> None:
    """A pod that reads events but cannot deliver them must not look healthy."""
    site.through(records(1, 1))
    answered = site.tailer.answered_at
    site.through(*[records(2, 2)] * 3, failures=(ValueError("a bug"),) * 3, quiet=False)
    assert site.tailer.answered_at == answered


def test_streams_of_a_replaced_log_end_even_if_that_fails_at_first(site: Site) -> None:
    site.through(LogReplaced("another one"), failures=(ValueError("a bug"),) * 2)
    site.through(records(5, 5))
    assert site.hub.got == [5]
    assert site.hub.told == ["replaced"] * 3, "until it has worked, and not again"


def test_a_replaced_log_is_followed_from_its_end(site: Site) -> None:
    site.through(records(7, 7))
    site.log.trimmed = 3
    site.through(LogReplaced("another one"))
    assert site.hub.told == ["replaced"] and site.log.asked == [0, 3]


# ── gaps ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_records_from_before_a_gap_are_dropped(site: Site) -> None:
    """A stream that got events from both sides of the gap would take them for complete."""
    site.hub.least = lambda: (3, 10**6)
    site.through(records(1, 2))
    assert site.log.looks == 2, "at the start; a batch that is smaller than the retention has no gap before it"
    site.log.trimmed = 6
    site.through(records(5, 8))
    assert site.hub.got == [1, 2, 7, 8]
    assert site.hub.told == [("overtaken", 6)]
    assert site.hub.obeyed == [5, 6], "control records among them count all the same"
    assert site.hub.returns == 2, "others may have been trimmed"


def test_trimming_of_what_was_read_is_no_gap(site: Site) -> None:
    site.hub.least = lambda: (2, 10**6)
    site.through(records(1, 2))
    site.log.trimmed = 2
    site.through(records(3, 4))
    assert site.log.looks == 4 and site.hub.told == []
    assert site.hub.got == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("batch", "looks"),
    [
        pytest.param(records(1, 9), False, id="a small one"),
        pytest.param(records(1, 10), True, id="as many as are kept"),
        pytest.param(records(1, FOLLOW_RECORDS), True, id="as many as fit"),
        pytest.param(records(1, 2, "x" * FOLLOW_CHARS), True, id="as much as fits"),
        pytest.param(Batch(records(1, 10), whole=True), False, id="handed over in memory"),
        pytest.param(Batch(records(1, 10)), True, id="traced, and as many as are kept"),
    ],
)
def test_the_log_is_asked_about_a_gap_only_if_one_is_possible(site: Site, batch: list[Record], looks: bool) -> None:
    kept = 10 if len(batch) < FOLLOW_RECORDS else 10**6
    site.hub.least = lambda: (kept, 10**6)
    before = site.log.looks
    site.through(batch)
    assert len(site.hub.got) == len(batch)
    assert (site.log.looks > before) is looks


def test_a_log_that_notices_gaps_is_asked_only_after_a_silence(site: Site) -> None:
    site.log.notices_gaps = True
    site.hub.least = lambda: (1, 10**6)
    before = site.log.looks
    site.through(records(1, 10))
    assert site.log.looks == before
    site.tailer.answered_at -= tailer_module.STALL
    site.through(records(11, 11))
    assert site.log.looks == before + 1


def test_a_gap_is_possible_after_half_the_retention_time(site: Site) -> None:
    site.hub.least = lambda: (10**6, 4.0)
    before = site.log.looks
    site.tailer.answered_at -= 2.0
    site.through(records(1, 1))
    assert site.log.looks == before + 1
    site.through(records(2, 2))
    assert site.log.looks == before + 1


# ── the start ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_window_is_filled_in_steps_and_seen_only_when_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full window takes a second, and a stream that saw half of it would begin in the past."""
    hub = FakeHub()
    hub.log.held = records(10, 10 + 2 * WARMED_PER_STEP)
    tailer = Tailer(hub, threading.Event())
    seen = list[tuple[int, int]]()
    monkeypatch.setattr(tailer_module, "breathe", lambda: seen.append((len(hub.window), hub.window.position)))
    tailer.warm()
    assert seen == [(0, 0)] * 3
    assert len(hub.window) == 2 * WARMED_PER_STEP + 1
    assert (hub.window.position, hub.window.lost) == (10 + 2 * WARMED_PER_STEP, 1)


@pytest.mark.parametrize(
    ("held", "oldest", "floor"),
    [
        pytest.param(records(10, 12), 10, 4, id="all that the log has: from where it was trimmed"),
        pytest.param(records(10, 12), 5, 9, id="the newest of it: from the first one"),
        pytest.param([], None, 4, id="nothing"),
    ],
)
def test_a_window_is_complete_from_its_floor_to_the_end_of_the_log(
    held: list[Record], oldest: int | None, floor: int
) -> None:
    """The log's end may lie beyond its last event: after a failover, new ids begin above the lost ones."""
    hub = FakeHub()
    hub.log.held, hub.log.oldest, hub.log.trimmed, hub.log.latest = held, oldest, 4, 20
    Tailer(hub, threading.Event()).warm()
    assert (hub.window.floor, hub.window.position) == (floor, 20)


# ── pace ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_others_run_between_the_steps_of_a_large_batch(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    breaths = list[int]()
    monkeypatch.setattr(tailer_module, "breathe", lambda: breaths.append(len(site.hub.got)))
    count = 2 * RECORDS_PER_STEP + 1
    site.through(records(1, count))
    assert len(site.hub.got) == count
    assert breaths == [RECORDS_PER_STEP, 2 * RECORDS_PER_STEP]


def test_the_next_batch_waits_while_nothing_is_written(site: Site) -> None:
    waited_after = list[int]()
    site.hub.await_round = lambda: waited_after.append(len(site.hub.got))  # type: ignore[method-assign]
    site.through(records(1, 1))
    site.through(records(2, 2))
    assert site.hub.got == [1, 2]
    assert sorted(set(waited_after)) == [1, 2], "it waits after each batch, before it takes the next"


def test_traces_reach_the_hub_before_their_events(site: Site) -> None:
    trace = Trace(1, 1, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    site.through(Batch(records(1, 1), [trace]))
    assert site.hub.got == [1]
    assert site.hub.told == [[trace]]
