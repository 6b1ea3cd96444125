"""Starting, watching and ending runs, over a real log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sse import Message
from sse.events.model import Event, InvalidEvent
from sse.log import ChannelClosed, Log
from sse.runs.book import channel_of
from sse.runs.states import RunActive, RunError, RunsFull, State
from tests.sse.runs.iterables import Waiting, numbers
from tests.sse.runs.parts import Worker, end_of, records, stored
from tests.support.wait import eventually

MakeWorker = Callable[..., Worker]


# ── from the first item to the end ───────────────────────────────────────────────────────────────────────────────────


def test_a_runs_items_are_stored_in_order_and_its_end_closes_the_channel(worker: Worker, log: Log) -> None:
    info = worker.run(numbers(3))
    assert info.channel == "a"
    ended = worker.wait_for(info)
    assert (ended.state, ended.events) == (State.DONE, 3)
    assert stored(log, "a") == (
        ["0", "1", "2"],
        [{"run": info.run, "state": "done", "events": 3, "usage": {"count": 3}}],
        True,
    )
    assert [record.event for record in records(log, "a")[-2:]] == ["run", "stream-end"]
    with pytest.raises(ChannelClosed):
        log.append([Event("a", "late")])


def test_an_item_may_be_a_message_or_a_mapping(worker: Worker, log: Log) -> None:
    info = worker.run(["one", Message("two", event="n", retry=5), {"data": "three", "event": "m"}])
    worker.wait_for(info)
    assert [(r.data, r.event, r.retry) for r in records(log, "a")[:3]] == [
        ("one", None, None),
        ("two", "n", 5),
        ("three", "m", None),
    ]


@pytest.mark.parametrize(
    ("items", "told"),
    [
        pytest.param([1], "not int", id="no-event"),
        pytest.param([Message("x", id="7")], "get their ids from the log", id="an-id-of-its-own"),
        pytest.param([Message("x", event="run")], "reserved", id="a-reserved-type"),
        pytest.param(["x" * 65_537], "at most 65536 bytes", id="too-large"),
        pytest.param(["é" * 40_000], "at most 65536 bytes", id="too-large-in-UTF-8"),
        pytest.param(None, "not iterable", id="no-iterable"),
    ],
)
def test_what_is_no_event_ends_the_run_as_an_error(
    items: Any, told: str, worker: Worker, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    info = worker.run(items)
    assert worker.wait_for(info).state is State.ERROR
    assert end_of(log, "a") == {"state": "error", "events": 0}
    assert told in caplog.text


def test_an_exception_is_told_to_the_log_only(worker: Worker, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> Iterator[str]:
        yield "one"
        raise RuntimeError("the password is hunter2")

    worker.wait_for(worker.run(fails()))
    assert end_of(log, "a") == {"state": "error", "events": 1}
    assert stored(log, "a").items == ["one"]
    assert "hunter2" in caplog.text


def test_a_run_error_is_told_to_clients(worker: Worker, log: Log) -> None:
    def fails() -> Iterator[str]:
        yield "one"
        raise RunError("no credit left")

    worker.wait_for(worker.run(fails()))
    assert end_of(log, "a") == {"state": "error", "events": 1, "error": "no credit left"}


@pytest.mark.parametrize(
    "usage", [object(), float("nan"), {"text": "x" * 70_000}], ids=["no-json", "not-a-number", "too-large"]
)
def test_a_usage_that_clients_could_not_read_is_left_out(
    usage: object, worker: Worker, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> Iterator[str]:
        yield "one"
        return usage  # type: ignore[return-value]

    worker.wait_for(worker.run(work()))
    assert end_of(log, "a") == {"state": "done", "events": 1}
    assert "is no usage" in caplog.text


def test_ten_thousand_items_at_once_are_all_stored(worker: Worker, log: Log) -> None:
    info = worker.run(str(number) for number in range(10_000))
    assert worker.wait_for(info, seconds=20).events == 10_000
    assert stored(log, "a").items == [str(number) for number in range(10_000)]
    assert worker.stats.run_items == 10_000


def test_with_close_false_the_channel_stays_open_for_further_runs(worker: Worker, log: Log) -> None:
    for number in range(3):
        info = worker.run([f"item {number}"], close=False)
        assert worker.wait_for(info).state is State.DONE
    assert not stored(log, "a").closed
    assert [end["events"] for end in stored(log, "a").ends] == [1, 1, 1]
    assert len({end["run"] for end in stored(log, "a").ends}) == 3
    log.append([Event("a", "still open")])


def test_a_runs_position_is_below_its_first_item_and_above_all_that_was_there(worker: Worker, log: Log) -> None:
    log.append([Event("a", "before")])
    first = worker.run(["one"], close=False)
    worker.wait_for(first)
    second = worker.run(["two"], close=False)
    worker.wait_for(second)
    assert [r.data for r in log.read(("a",), second.after, 10, 1000) if r.event is None] == ["two"]
    assert [r.data for r in log.read(("a",), first.after, 10, 1000) if r.event is None] == ["one", "two"]


# ── who may start one ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_channel_has_one_run_at_a_time(worker: Worker) -> None:
    work = Waiting()
    info = worker.run(work)
    with pytest.raises(RunActive) as refused:
        worker.run(["other"])
    assert (refused.value.channel, refused.value.run) == ("a", info.run)
    work.go.set()
    worker.wait_for(info)
    with pytest.raises(ChannelClosed):
        worker.run(["other"])
    assert worker.wait_for(worker.run(["other"], channel="b")).state is State.DONE


def test_a_key_gives_the_run_that_is_there_running_or_ended(make_worker: MakeWorker, log: Log) -> None:
    here, there = make_worker(), make_worker()
    work, unneeded = Waiting("one"), Waiting()
    first = here.run(work, key="k")
    assert channel_of(first.run) == "a"
    for worker in (here, there):
        assert worker.run(unneeded, key="k").run == first.run
        with pytest.raises(RunActive):
            worker.run([], key="another")
    work.go.set()
    here.wait_for(first)
    for worker in (here, there):
        again = worker.run(unneeded, key="k")
        assert (again.run, again.state, again.after) == (first.run, State.DONE, first.after)
    assert stored(log, "a").ends == [{"run": first.run, "state": "done", "events": len(stored(log, "a").items)}]
    assert not unneeded.waits.is_set()


def test_the_iterable_of_a_key_that_is_known_is_closed(worker: Worker) -> None:
    class Opened:
        closed = 0

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("it is not needed")

        def close(self) -> None:
            self.closed += 1

    worker.run(["x"], key="k")
    opened = Opened()
    worker.run(opened, key="k")
    assert opened.closed == 1


def test_of_many_starts_at_once_with_one_key_one_starts(make_worker: MakeWorker, log: Log) -> None:
    workers = [make_worker(), make_worker()]
    pulled: list[int] = []
    begin = threading.Barrier(8)
    found: list[str] = []

    def work(number: int) -> Iterator[str]:
        pulled.append(number)
        yield f"from {number}"

    def start(number: int) -> None:
        begin.wait()
        found.append(workers[number % 2].run(work(number), key="k").run)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    eventually(lambda: stored(log, "a").closed, 5)
    assert stored(log, "a").items == [f"from {number}" for number in pulled] and len(pulled) == 1


def test_a_worker_takes_only_so_many_runs(make_worker: MakeWorker) -> None:
    worker = make_worker(SSE_MAX_RUNS=2)
    works = [Waiting(), Waiting()]
    infos = [worker.run(work, channel=f"c{number}") for number, work in enumerate(works)]
    assert worker.stats.runs == {"starting": 0, "running": 2}
    with pytest.raises(RunsFull):
        worker.run(["more"], channel="c9")
    assert worker.stats.runs == {"starting": 0, "running": 2}
    works[0].go.set()
    worker.wait_for(infos[0])
    worker.wait_for(worker.run(["more"], channel="c9"))
    works[1].go.set()


def test_a_channel_must_have_a_channels_name(worker: Worker) -> None:
    for name in ("", "_reserved", "with space", "orders:*"):
        with pytest.raises(InvalidEvent):
            worker.run(["x"], channel=name)


# ── what is told about them ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_known_on_every_worker(make_worker: MakeWorker) -> None:
    here, there = make_worker(), make_worker()
    work = Waiting("one", "two")
    before = time.time_ns() // 1_000_000
    info = here.run(work)
    eventually(lambda: (here.runs.find(info.run) or info).events >= 2, 5)
    found = there.runs.find(info.run)
    assert found is not None
    public = found.public()
    assert public.keys() == {"run", "channel", "state", "started", "events", "worker"}
    assert (public["run"], public["channel"], public["state"]) == (info.run, "a", "running")
    assert public["worker"] == here.runs.worker != there.runs.worker
    assert before <= public["started"] <= time.time_ns() // 1_000_000
    eventually(lambda: (there.runs.find(info.run) or info).events >= 2, 5, "its worker tells the count")
    work.go.set()
    ended = here.wait_for(info)
    assert there.runs.find(info.run) == ended


def test_the_runs_of_a_channel_are_listed_the_newest_first(worker: Worker) -> None:
    infos = []
    for _ in range(3):
        infos.append(worker.run(["x"], close=False))
        worker.wait_for(infos[-1])
    worker.wait_for(worker.run(["y"], channel="b"))
    assert [info.run for info in worker.runs.of_channel("a")] == [info.run for info in reversed(infos)]
    assert worker.runs.of_channel("nothing") == []


def test_a_run_is_counted_and_logged(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headwater.runs"):
        info = worker.run(["x", "y"])
        worker.wait_for(info)
        eventually(lambda: len(worker.runs) == 0, 2)
    assert worker.stats.runs_ended == {"done": 1}
    assert worker.stats.runs == {"starting": 0, "running": 0}
    assert sum(worker.stats.run_seconds.counts) == 1 and worker.stats.run_items == 2
    assert f"run run={info.run} state=done events=2 duration=" in caplog.text
