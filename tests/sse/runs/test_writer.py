"""What runs yield is stored in few appends, once and in order, whatever becomes of the log."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sse.events.model import Event
from sse.log import Log, LogUnavailable
from sse.runs.states import State
from sse.runs.writer import ITEM_OVERHEAD, MOST_WAITING
from tests.sse.runs.parts import Worker, end_of, stored
from tests.support.wait import eventually


class Counting:
    """A log that counts appends, and is away, or loses its answers, when it is told to."""

    def __init__(self, log: Log) -> None:
        self.inner = log
        self.appends: list[int] = []  # the number of events of each that was carried out
        self.away = False
        self.loses_answers = 0

    def append(self, events: Any, **named: Any) -> list[int]:
        if self.away:
            raise LogUnavailable("told to be away", retry_after=0.02, stored="no")
        positions = self.inner.append(events, **named)
        self.appends.append(len(events))
        if self.loses_answers:
            self.loses_answers -= 1
            raise LogUnavailable("told to lose the answer", retry_after=0.02)
        return positions

    def __getattr__(self, name: str) -> Any:
        if self.away and name in ("put_note", "notes", "read", "bounds", "closed"):
            raise LogUnavailable("told to be away", stored="no")
        return getattr(self.inner, name)


@pytest.fixture
def counting(log: Log) -> Counting:
    return Counting(log)


def a_worker(counting: Counting, closing: ExitStack, **settings: Any) -> Worker:
    log: Any = counting
    return Worker(log, closing, **settings)


def test_what_comes_within_the_flush_shares_an_append(counting: Counting, closing: ExitStack, log: Log) -> None:
    worker = a_worker(counting, closing, SSE_RUN_FLUSH=200)
    infos = [worker.run([f"{number}" for number in range(50)], channel=f"c{run}") for run in range(5)]
    for info in infos:
        worker.wait_for(info)
    items = [count for count in counting.appends if count > 1]
    # The first one may find few of them; the rest of all five runs is in one append, or in two on a slow machine.
    assert sum(items) >= 245 and len(items) <= 4, counting.appends
    for run in range(5):
        assert stored(log, f"c{run}").items == [f"{number}" for number in range(50)]


def test_a_lone_item_does_not_wait_for_the_flush(counting: Counting, closing: ExitStack, log: Log) -> None:
    worker = a_worker(counting, closing, SSE_RUN_FLUSH=1000)
    go = threading.Event()

    def one() -> Iterator[str]:
        yield "now"
        go.wait(10)

    info = worker.run(one())
    began = time.monotonic()
    eventually(lambda: stored(log, "a").items == ["now"], 5)
    assert time.monotonic() - began < 0.5
    go.set()
    worker.wait_for(info)


def test_the_publish_rate_holds_a_run_back_but_refuses_nothing(counting: Counting, closing: ExitStack) -> None:
    worker = a_worker(counting, closing, SSE_RUN_FLUSH=0, SSE_PUBLISH_RATE=10)

    def steady() -> Iterator[str]:
        for number in range(60):
            yield str(number)
            time.sleep(0.01)

    info = worker.run(steady())
    assert worker.wait_for(info, seconds=10).events == 60
    assert len(counting.appends) <= 12, "ten a second for 0.6 s, the first one, and the end"


def test_an_append_without_an_answer_is_stored_once(counting: Counting, closing: ExitStack, log: Log) -> None:
    worker = a_worker(counting, closing)
    counting.loses_answers = 3
    info = worker.run([str(number) for number in range(300)])
    assert worker.wait_for(info).events == 300
    assert counting.loses_answers == 0
    assert stored(log, "a").items == [str(number) for number in range(300)]
    assert len(stored(log, "a").ends) == 1


def test_what_a_run_yields_while_the_log_is_away_waits(
    counting: Counting, closing: ExitStack, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    worker = a_worker(counting, closing)
    go = threading.Event()
    yielded: list[int] = []

    def work() -> Iterator[str]:
        for number in itertools.count():
            if go.is_set():
                return
            yielded.append(number)
            yield str(number)
            time.sleep(0.001)

    with caplog.at_level(logging.WARNING, "headwater.runs"):
        info = worker.run(work())
        eventually(lambda: stored(log, "a").items, 5)
        counting.away = True
        before = len(stored(log, "a").items)
        count = len(yielded)
        eventually(lambda: len(yielded) > count + 100, 5, "the iterable must go on")
        eventually(lambda: worker.stats.append_failed_at, 5)
        assert len(stored(log, "a").items) <= before + 100
        counting.away = False
        eventually(lambda: len(stored(log, "a").items) > count + 100, 5)
        go.set()
        assert worker.wait_for(info).state is State.DONE
    assert stored(log, "a").items == [str(number) for number in yielded]
    assert worker.stats.append_failed_at == 0.0
    assert caplog.text.count("cannot be stored, it waits") == 1 and caplog.text.count("is stored again") == 1


def test_a_run_that_has_yielded_too_much_while_the_log_is_away_ends_as_an_error(
    counting: Counting, closing: ExitStack, log: Log
) -> None:
    worker = a_worker(counting, closing)
    go = threading.Event()
    closed = threading.Event()
    yielded = 0
    item = "x" * 10_000

    def work() -> Iterator[str]:
        nonlocal yielded
        try:
            go.wait(10)
            while True:
                yielded += 1
                yield item
        finally:
            closed.set()

    info = worker.run(work())
    counting.away = True
    go.set()
    assert closed.wait(10), "it is stopped"
    most = MOST_WAITING // (len(item) + ITEM_OVERHEAD)
    assert most <= yielded <= most + 1
    counting.away = False
    ended = worker.wait_for(info, seconds=10)
    assert (ended.state, ended.events) == (State.ERROR, most)
    assert stored(log, "a").items == [item] * most, "nothing that it had yielded is dropped"
    assert end_of(log, "a") == {"state": "error", "events": most, "error": "the log could not be reached"}


def test_while_the_log_answers_a_fast_iterable_waits_and_nothing_is_dropped(
    counting: Counting, closing: ExitStack, log: Log
) -> None:
    worker = a_worker(counting, closing)
    items = [f"{number} ".ljust(20_000, "x") for number in range(300)]  # six times what may wait
    info = worker.run(items)
    assert worker.wait_for(info, seconds=20).state is State.DONE
    assert stored(log, "a").items == items


def test_a_stopped_run_stores_what_it_had_yielded(counting: Counting, closing: ExitStack, log: Log) -> None:
    worker = a_worker(counting, closing, SSE_RUN_FLUSH=1000)
    log.append([Event("b", "x")])
    yielded: list[str] = []

    def work() -> Iterator[str]:
        for number in itertools.count():
            yielded.append(str(number))
            yield str(number)
            time.sleep(0.01)

    info = worker.run(work())
    eventually(lambda: len(yielded) > 10, 5)
    worker.runs.stop(info.run)
    worker.wait_for(info)
    # The last one was yielded after the stop, or not at all.
    assert stored(log, "a").items in (yielded, yielded[:-1])
