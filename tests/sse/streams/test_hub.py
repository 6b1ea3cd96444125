"""The hub over real logs: following, groups, settings, and its own life."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sse.events.model import Event, format_id
from sse.events.names import CANARY_CHANNEL, STATS_CHANNEL
from sse.events.wire import encode_block
from sse.log import open_log
from tests.sse.log.redis_place import redis_server
from tests.sse.worker_parts import Parts, numbers, reset_of
from tests.support.redis_server import RedisServer
from tests.support.sse_parser import StreamEvent
from tests.support.wait import eventually

#: for what has nothing to do with the kind of log
ONE_ENGINE = pytest.mark.parametrize("url", ["memory:"])


# ── following the log ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_flood_from_redis_costs_one_request_for_each_batch(
    request: pytest.FixtureRequest, closing: ExitStack
) -> None:
    server = redis_server(request)
    worker = closing.enter_context(Parts(server.url))
    worker.append("first")
    asked, reads = worker.log.asked["bounds"], redis_reads(server)
    worker.log.flowing.clear()
    last = [worker.log.append([Event("a", "x")] * 1000)[-1] for _ in range(8)][-1]
    worker.log.flowing.set()
    worker.reach(last)
    # Redis is busy with the appends, so each further request would wait as long as the first.
    assert worker.log.asked["bounds"] == asked
    assert redis_reads(server) - reads <= 8 + 4
    assert len(worker.hub.window) == 8001


def test_a_flood_of_a_workers_own_events_asks_sqlite_nothing(tmp_path: Path, closing: ExitStack) -> None:
    """Records handed over in memory have no gap before them; records read from the file may have one."""
    worker = closing.enter_context(Parts(f"sqlite:///{tmp_path}/log.db"))
    worker.append("first")
    asked = worker.log.asked["bounds"]
    worker.reach([worker.log.append([Event("a", "x")] * 1000)[-1] for _ in range(8)][-1])
    assert worker.log.asked["bounds"] == asked
    with closing.enter_context(Parts(f"sqlite:///{tmp_path}/log.db")) as other:
        worker.reach([other.log.append([Event("a", "x")] * 1000)[-1] for _ in range(8)][-1])
    assert worker.log.asked["bounds"] > asked


def redis_reads(server: RedisServer) -> int:
    return int(server.run("INFO", "commandstats").get("cmdstat_xread", {}).get("calls", 0))


def test_a_log_outage_loses_no_event(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None)
    worker.append("1")
    worker.log.down = True
    worker.log.inner.append([Event("a", "2")])  # another worker still reaches the log
    eventually(lambda: worker.log.asked["follow"] > 1, 5, "the tailer tries again")
    worker.log.inner.append([Event("a", "3")])
    worker.log.down = False
    assert stream.read(3) == numbers(1, 3)


def test_a_worker_overtaken_by_retention_ends_its_streams_at_the_gap(tmp_path: Path, closing: ExitStack) -> None:
    """While one worker could not read the log, others wrote more than it keeps. Its streams must resume with a
    stream-reset."""
    url = f"sqlite:///{tmp_path}/h.db"
    ahead = closing.enter_context(Parts(url, SSE_RETAIN_EVENTS=10))
    behind = closing.enter_context(Parts(url, SSE_RETAIN_EVENTS=10))
    behind.append("0")
    stream = behind.open(None)
    behind.log.down = True
    behind.log.wake()
    follows = behind.log.asked["follow"]
    eventually(lambda: behind.log.asked["follow"] > follows, 5, "the tailer has lost the log")
    ahead.append(*numbers(1, 40))
    ahead.log.trim_all()
    behind.log.down = False
    behind.reach(ahead.hub.window.position)
    assert stream.read_to_end() == [], "nothing that comes after the gap"
    assert behind.ended == [("fell-behind", 0)]
    resumed = behind.open(stream.last_event_id)
    assert (reset_of(resumed) or {})["reason"] == "expired"
    assert resumed.read(10) == numbers(31, 40)


@ONE_ENGINE
def test_a_waiting_stream_ends_at_once_when_retention_overtakes_it(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_RETAIN_EVENTS=2)
    worker.append("1")
    stream = worker.open(None)
    with ThreadPoolExecutor() as thread:
        end = thread.submit(stream.read_to_end)
        eventually(lambda: worker.hub.status().streams == {"live": 1}, 5)
        worker.log.flowing.clear()
        worker.log.append([Event("a", text) for text in numbers(2, 9)])
        worker.log.trim_all()
        worker.hub.overtaken(worker.log.bounds().trimmed)
        assert end.result(5) == []
    assert worker.ended == [("fell-behind", 0)]
    worker.log.flowing.set()


@ONE_ENGINE
def test_a_replaced_log_ends_its_streams_and_the_new_one_is_followed(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.append("1")
    stream = worker.open(None)
    time.sleep(0.005)  # the new log must begin in a later millisecond, or it would know this cursor
    worker.log.replace_by(open_log("memory:", retain_events=100, retain_seconds=60))
    assert stream.read_to_end() == []
    assert worker.ended == [("replaced", 0)]
    eventually(lambda: worker.hub.wait_ready(0), 10, "the new log is not followed")
    resumed = worker.open(stream.last_event_id)
    assert (reset_of(resumed) or {})["reason"] == "before-log"
    worker.append("new")
    assert resumed.read(1) == ["new"]


def test_pending_frames_stay_when_the_last_live_stream_leaves_before_the_pass(
    parts: Callable[..., Parts],
) -> None:
    """A stream that joins at the group's position relies on the pending frames, so they must have no holes."""
    worker = parts()
    pulled = worker.open(None)
    group, stream = pulled.stream.group, pulled.stream
    group.add_live(stream)
    (owed,) = worker.append("1")
    group.remove_live(stream)
    (next_one,) = worker.append("2")
    position = group.position(worker.hub.window.position)
    pending = [frame.position for frame in group.pending]
    assert pending == [p for p in (owed, next_one) if p > position]


def test_a_new_worker_knows_the_newest_events_and_answers_from_its_window(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    positions = closing.enter_context(Parts(url)).append(*numbers(1, 50))
    worker = closing.enter_context(Parts(url))
    worker.log.asked.clear()
    assert worker.open(format_id(positions[9])).read(40) == numbers(11, 50)
    assert not worker.log.asked["read"]


@pytest.mark.parametrize("window", [pytest.param(10**7, id="holds all"), pytest.param(4 * 400, id="holds some")])
def test_a_warmed_window_is_complete_from_its_floor_on(tmp_path: Path, closing: ExitStack, window: int) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    first = closing.enter_context(Parts(url))
    start = first.hub.window.position
    positions = [start, *first.append(*numbers(1, 50))]
    worker = closing.enter_context(Parts(url, SSE_WINDOW_BYTES=window))
    known = worker.hub.window
    assert known.position == positions[-1]
    held = known.read({"a"}, None, known.floor, known.position, 10**9).frames
    assert [frame.position for frame in held] == [p for p in positions if p > known.floor]
    for seen in (0, 25, 47, 49):
        assert worker.open(format_id(positions[seen])).read(50 - seen) == numbers(seen + 1, 50)


# ── groups, and settings that change ──────────────────────────────────────────────────────────────────────────


@ONE_ENGINE
def test_a_shorter_heartbeat_interval_counts_for_open_streams(parts: Callable[..., Parts]) -> None:
    worker = parts()  # 3600 s
    stream = worker.open(None)
    with ThreadPoolExecutor() as thread:
        turn = thread.submit(stream.turn)
        eventually(lambda: worker.hub.pulling, 5)
        worker.change(SSE_HEARTBEAT=0.05)
        (block,) = turn.result(5) or ()
    assert block.event == "heartbeat"


def test_a_changed_retention_is_applied_once_all_workers_have_had_time_to_know_it(
    tmp_path: Path, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse.streams.retention.RETENTION_DELAY", 1.5)
    worker = closing.enter_context(Parts(f"sqlite:///{tmp_path}/h.db"))
    worker.append(*numbers(1, 20))
    began = time.monotonic()
    worker.change(SSE_RETAIN_EVENTS=5)
    eventually(lambda: len(worker.log.read(None, 0, 100, 10**6)) == 5, 8)
    assert time.monotonic() - began > 1.5
    worker.change(SSE_RETAIN_EVENTS=100)
    assert worker.hub.retention.applied[:2] == (5, 86_400), (
        "until it is applied, gaps are looked for by the lower value"
    )
    eventually(lambda: worker.hub.retention.applied[:2] == (100, 86_400), 8)


@ONE_ENGINE
def test_a_group_is_forgotten_with_its_last_member(parts: Callable[..., Parts]) -> None:
    worker = parts()
    streams = [worker.open(None, f"c{n}", "shared") for n in range(20)]
    assert len(worker.hub.groups) == 20
    for stream in streams:
        worker.hub.closed(stream.stream, "client")
    assert not worker.hub.groups
    assert not worker.hub.groups.of("shared")
    assert worker.hub.admission.streams == 0


# ── its own life ──────────────────────────────────────────────────────────────────────────────────────────────


@ONE_ENGINE
def test_the_canary_is_sent_a_heartbeat_each_second(parts: Callable[..., Parts]) -> None:
    stream = parts().open(None, CANARY_CHANNEL)
    beats: list[StreamEvent] = []
    while len(beats) < 2:
        beats += stream.turn() or []
    assert {beat.event for beat in beats} == {"heartbeat"}
    first, second = (int(beat.data or 0) for beat in beats[:2])
    assert 800 < second - first < 3000


@ONE_ENGINE
def test_status_describes_the_hub_without_asking_the_log(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.append("1")
    stream = worker.open(None)
    worker.append("2")
    stream.read(1)
    before = worker.log.reads
    status = worker.hub.status()
    assert (status.started, status.draining, status.hub_alive) == (True, False, True)
    assert status.position == worker.hub.window.position
    assert 0 <= status.tail_age < 3
    assert sum(status.streams.values()) == 1
    assert worker.log.reads == before


@ONE_ENGINE
def test_tail_age_grows_while_the_log_does_not_answer(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.log.down = True
    eventually(lambda: worker.hub.status().tail_age > 1.5, 10, "an outage raises tail_age")
    worker.log.down = False
    eventually(lambda: worker.hub.status().tail_age < 1.2, 10, "the end of an outage lowers tail_age")


def test_a_hub_that_never_reached_its_log_is_not_started(tmp_path: Path, closing: ExitStack) -> None:
    worker = Parts(f"sqlite:///{tmp_path}/h.db")
    closing.callback(worker.__exit__)
    worker.log.down = True
    worker.hub.start()
    assert not worker.hub.wait_ready(0.3)
    assert not worker.hub.status().started
    worker.log.down = False
    assert worker.hub.wait_ready(5)


@ONE_ENGINE
@pytest.mark.parametrize("duty", ["_duties._report", "log.trim", "deliveries.flush"])
def test_a_failing_duty_is_logged_once_and_tried_again_while_the_others_go_on(
    parts: Callable[..., Parts], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, duty: str
) -> None:
    monkeypatch.setattr("sse.runtime.failures.AFTER_FAILURE", 0.02)
    worker = parts(SSE_RETAIN_EVENTS=5)
    hub, failures = worker.hub, list[str]()
    holder, _, name = f"hub.{duty}".rpartition(".")
    hub._duties._report = lambda: encode_block("{}", event="stats")
    place = eval(holder)

    def broken(*_: Any) -> Any:
        failures.append(name)
        raise ZeroDivisionError

    works = getattr(place, name)
    setattr(place, name, broken)
    with ThreadPoolExecutor() as thread:
        console = worker.open(None, STATS_CHANNEL)
        stats = thread.submit(console.turn)
        positions = worker.append(*numbers(1, 20))
        eventually(lambda: len(failures) > 3, 10, "it is tried again")
        canary = worker.open(None, CANARY_CHANNEL)
        assert [block.event for block in thread.submit(canary.turn).result(5) or []] == ["heartbeat"]
        assert hub.status().hub_alive
        setattr(place, name, works)
        eventually(lambda: worker.log.inner.bounds().trimmed == positions[14], 10, "the log is trimmed")
        assert [block.event for block in stats.result(10) or []] == ["stats"]
    eventually(lambda: "works again" in caplog.text, 10)
    assert caplog.text.count("failed; it is tried again") == 1
