"""Stopping runs, and runs that are ended from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sse.log import Log
from sse.runs.states import State
from tests.sse.runs.iterables import Waiting
from tests.sse.runs.parts import Worker, end_of, records, stored
from tests.support.wait import eventually

MakeWorker = Callable[..., Worker]


def test_stop_closes_the_iterable_where_it_stands(worker: Worker, log: Log) -> None:
    work = Waiting("one")
    info = worker.run(work)
    assert work.waits.wait(5)
    before = time.monotonic()
    worker.runs.stop(info.run)
    assert worker.wait_for(info).state is State.STOPPED
    assert time.monotonic() - before < 1.0
    assert work.closed == ["GeneratorExit", "closed"]
    assert stored(log, "a").items[0] == "one"
    assert end_of(log, "a") == {"state": "stopped", "events": len(stored(log, "a").items)}


def test_stop_twice_and_after_the_end_changes_nothing(worker: Worker, log: Log) -> None:
    work = Waiting()
    info = worker.run(work)
    worker.runs.stop(info.run)
    worker.runs.stop(info.run)
    worker.wait_for(info)
    worker.runs.stop(info.run)
    assert len(stored(log, "a").ends) == 1
    done = worker.run(["x"], channel="b")
    worker.wait_for(done)
    stopped = worker.runs.stop(done.run)
    assert stopped is not None and stopped.state is State.DONE
    assert end_of(log, "b")["state"] == "done"
    assert worker.runs.stop("a~" + "0" * 32) is None


def test_a_stop_goes_through_the_log_to_the_worker_that_has_the_run(make_worker: MakeWorker, log: Log) -> None:
    here, there = make_worker(), make_worker()
    info = here.run(Waiting())
    there.runs.stop(info.run)
    (record,) = records(log, "_control")
    assert (record.event, record.data) == ("stop", f'{{"run": "{info.run}"}}')
    there.runs.on_stop({"run": info.run})
    assert here.state(info) is State.RUNNING
    here.runs.on_stop({"run": info.run})
    here.wait_for(info, State.STOPPED)


def test_an_iterable_that_does_not_end_cannot_keep_its_run_from_ending(
    worker: Worker, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    def deaf() -> Iterator[str]:
        yield "one"
        release.wait(20)
        yield "late"

    info = worker.run(deaf())
    eventually(lambda: stored(log, "a").items == ["one"], 5)
    before = time.monotonic()
    worker.runs.stop(info.run)
    worker.wait_for(info, State.STOPPED)
    assert time.monotonic() - before < 2.0
    assert "goes on though it was told to stop" in caplog.text
    release.set()
    time.sleep(0.05)
    assert stored(log, "a") == (["one"], [{"run": info.run, "state": "stopped", "events": 1}], True)


def test_an_iterable_that_ignores_generator_exit_is_left_alone(
    worker: Worker, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    def stubborn() -> Iterator[str]:
        while True:
            try:
                yield "tick"
                time.sleep(0.01)
            except GeneratorExit:
                yield "no"

    info = worker.run(stubborn())
    eventually(lambda: stored(log, "a").items, 5)
    worker.runs.stop(info.run)
    worker.wait_for(info, State.STOPPED)
    assert "no" not in stored(log, "a").items
    assert "generator ignored GeneratorExit" in caplog.text


def test_a_closed_channel_ends_its_run(worker: Worker, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    work = Waiting()
    info = worker.run(work)
    other = worker.run(Waiting(), channel="b")
    eventually(lambda: stored(log, "a").items, 5)
    log.append([], close=("a",))
    assert worker.wait_for(info).state is State.ERROR
    assert "closed" in work.closed
    assert stored(log, "a").ends == []
    count = len(stored(log, "b").items)
    eventually(lambda: len(stored(log, "b").items) > count + 3, 5, "the other runs of its worker go on")
    assert worker.state(other) is State.RUNNING


def test_the_drain_ends_what_is_left_as_lost(worker: Worker, log: Log) -> None:
    work = Waiting("one")
    info = worker.run(work)
    assert work.waits.wait(5)
    worker.runs.drain()
    assert worker.wait_for(info).state is State.LOST
    assert end_of(log, "a") == {"state": "lost", "events": len(stored(log, "a").items), "error": "drained"}
    assert len(worker.runs) == 0
