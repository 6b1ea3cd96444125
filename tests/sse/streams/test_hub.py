"""The hub over real logs: following, groups, admission, and its own life."""

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
from sse.settings import Settings
from tests.sse.log.redis_place import redis_server
from tests.sse.worker_parts import Parts, Pulled, numbers, reset_of
from tests.support.redis_server import RedisServer
from tests.support.sse_parser import StreamEvent
from tests.support.wait import eventually

#: for what has nothing to do with the kind of log
ONE_ENGINE = pytest.mark.parametrize("url", ["memory:"])


# ── following the log ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_flood_from_redis_costs_one_question_a_batch(request: pytest.FixtureRequest, closing: ExitStack) -> None:
    server = redis_server(request)
    worker = closing.enter_context(Parts(server.url))
    worker.append("first")
    asked, reads = worker.log.asked["bounds"], redis_reads(server)
    worker.log.flowing.clear()
    last = [worker.log.append([Event("a", "x")] * 1000)[-1] for _ in range(8)][-1]
    worker.log.flowing.set()
    worker.reach(last)
    # Whoever appends at such a rate keeps Redis busy: a second question waits for as long as the first.
    assert worker.log.asked["bounds"] == asked
    assert redis_reads(server) - reads <= 8 + 4
    assert len(worker.hub.window) == 8001


def test_a_flood_of_a_workers_own_events_asks_sqlite_nothing(tmp_path: Path, closing: ExitStack) -> None:
    """What was handed over has no gap before it; what was read may have one."""
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


def test_a_log_that_went_away_and_came_back_costs_no_event(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None)
    worker.append("1")
    worker.log.down = True
    worker.log.inner.append([Event("a", "2")])  # by another worker, which reaches it
    eventually(lambda: worker.log.asked["follow"] > 1, 5, "the tailer tries again")
    worker.log.inner.append([Event("a", "3")])
    worker.log.down = False
    assert stream.read(3) == numbers(1, 3)


def test_a_worker_that_was_overtaken_by_retention_does_not_pass_the_gap_off_as_complete(
    tmp_path: Path, closing: ExitStack
) -> None:
    """While one worker could not read the log, others wrote more than it keeps: its streams are to resume, with a
    stream-reset, and not to go on as if nothing were missing."""
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
def test_a_stream_that_waits_for_an_event_hears_at_once_that_it_was_overtaken(parts: Callable[..., Parts]) -> None:
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
def test_a_log_that_was_replaced_ends_its_streams_and_the_new_one_is_followed(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.append("1")
    stream = worker.open(None)
    time.sleep(0.005)  # a log made in the same millisecond would know this cursor
    worker.log.replace_by(open_log("memory:", retain_events=100, retain_seconds=60))
    assert stream.read_to_end() == []
    assert worker.ended == [("replaced", 0)]
    eventually(lambda: worker.hub.wait_ready(0), 10, "the new log is not followed")
    resumed = worker.open(stream.last_event_id)
    assert (reset_of(resumed) or {})["reason"] == "before-log"
    worker.append("new")
    assert resumed.read(1) == ["new"]


def test_what_a_group_owes_is_not_forgotten_when_its_last_live_stream_goes_before_the_pass(
    parts: Callable[..., Parts],
) -> None:
    """A stream that joins at the group's position relies on the pending frames: they must have no holes."""
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
def test_a_window_that_was_warmed_is_complete_from_its_floor_on(
    tmp_path: Path, closing: ExitStack, window: int
) -> None:
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


# ── admission ─────────────────────────────────────────────────────────────────────────────────────────────────


@ONE_ENGINE
def test_streams_are_admitted_up_to_the_limit_and_again_when_one_has_gone(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_MAX_STREAMS=3)
    streams = [worker.open(None) for _ in range(3)]
    assert worker.hub.admission.admit("-") == "streams"
    worker.hub.closed(streams[1].stream, "client")
    assert worker.hub.admission.admit("-") is None
    assert worker.hub.stats.refused == {"streams": 1}


@ONE_ENGINE
def test_streams_of_one_address_are_admitted_up_to_their_limit(parts: Callable[..., Parts]) -> None:
    hub = parts(SSE_MAX_STREAMS_PER_IP=2).hub
    assert [hub.admission.admit("10.0.0.1") for _ in range(3)] == [None, None, "streams-per-ip"]
    assert hub.admission.admit("10.0.0.2") is None


@ONE_ENGINE
def test_a_limit_for_addresses_that_comes_later_counts_who_is_there_and_forgets_nobody(
    parts: Callable[..., Parts],
) -> None:
    worker = parts()
    hub = worker.hub

    def come(client: str) -> Pulled:
        stream = worker.open(None)
        hub.admission._per_client["-"] -= 1
        hub.admission._per_client[client] += 1
        stream.stream.client = client
        return stream

    site = ("2001:db8:0:7::1", "2001:db8:0:7::2")
    there = [come(client) for client in ("10.0.0.1", "10.0.0.1", *site)]
    worker.change(SSE_MAX_STREAMS_PER_IP=2)
    assert [hub.admission.admit(client) for client in ("10.0.0.1", "2001:db8:0:7::/64")] == ["streams-per-ip"] * 2
    worker.change()
    there.append(come(site[0]))  # by its own address again
    worker.change(SSE_MAX_STREAMS_PER_IP=3)
    assert hub.admission.admit("2001:db8:0:7::/64") == "streams-per-ip"
    for stream in there:
        hub.closed(stream.stream, "client")
    assert hub.admission.streams == 0 and +hub.admission._per_client == {}


@ONE_ENGINE
def test_a_heartbeat_that_becomes_due_sooner_comes_sooner(parts: Callable[..., Parts]) -> None:
    worker = parts()  # 3600 s
    stream = worker.open(None)
    with ThreadPoolExecutor() as thread:
        turn = thread.submit(stream.turn)
        eventually(lambda: worker.hub.pulling, 5)
        worker.change(SSE_HEARTBEAT=0.05)
        (block,) = turn.result(5) or ()
    assert block.event == "heartbeat"


def test_less_retention_is_trimmed_by_when_all_workers_have_had_the_time_to_know_it(
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
    assert worker.hub.retention.applied == (5, 86_400), "until it is trimmed by, a gap is looked for by the lower one"
    eventually(lambda: worker.hub.retention.applied == (100, 86_400), 8)


@ONE_ENGINE
def test_a_draining_worker_admits_nobody(parts: Callable[..., Parts]) -> None:
    hub = parts().hub
    hub.admission.drain()
    assert hub.admission.admit("-") == "drain"


class Interrupted:
    """Settings between whose looking up and use other threads always run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._settings, name)
        time.sleep(0.001)
        return value


@ONE_ENGINE
def test_threads_that_ask_at_once_are_not_admitted_beyond_the_limit(parts: Callable[..., Parts]) -> None:
    hub = parts().hub
    hub.admission._settings = Interrupted(hub.settings)  # type: ignore[assignment]
    for _ in range(5):
        hub.admission.streams = 0
        hub.admission.limit_pulling(2)
        with ThreadPoolExecutor(4) as pool:
            admitted = list(pool.map(lambda _: hub.admission.admit("-"), range(4)))
        assert admitted.count(None) == 2
    hub.admission.streams = 0


@ONE_ENGINE
def test_groups_that_nobody_is_in_any_more_are_forgotten(parts: Callable[..., Parts]) -> None:
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
def test_status_says_how_the_hub_is_and_costs_the_log_nothing(parts: Callable[..., Parts]) -> None:
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
def test_the_tail_grows_old_while_the_log_does_not_answer(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.log.down = True
    eventually(lambda: worker.hub.status().tail_age > 1.5, 10, "the log is down, and nobody sees it")
    worker.log.down = False
    eventually(lambda: worker.hub.status().tail_age < 1.2, 10, "the log is back, and nobody sees it")


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
def test_a_duty_that_fails_is_said_once_is_tried_again_and_leaves_the_others_alone(
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
