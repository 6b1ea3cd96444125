"""Generator streams: what they send, when, and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from sse.events.model import Event, format_id
from sse.events.wire import heartbeat_block
from sse.streams.group import Subscription
from sse.streams.pull import PAGES_PER_TURN, PullStream
from sse.streams.replay import PAGE_BYTES
from sse.streams.stream import Stream
from tests.sse.worker_parts import Parts, Pulled, numbers
from tests.support.wait import eventually


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Callable[..., Parts]]:
    with ExitStack() as stack:
        yield lambda url="memory:", **settings: stack.enter_context(Parts(url, **settings))


class Beating(threading.Thread):
    """Publish as fast as possible until told to stop."""

    def __init__(self, worker: Parts, channel: str = "a") -> None:
        super().__init__(daemon=True)
        self._worker, self._channel, self._stop_now = worker, channel, threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self._stop_now.is_set():
            self._worker.log.append([Event(self._channel, str(self.count))])
            self.count += 1

    def stop(self) -> None:
        self._stop_now.set()
        self.join(5)


def test_a_silent_stream_gets_heartbeats_whose_id_resumes_exactly(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_HEARTBEAT=0.05)
    stream = worker.open(None, "quiet")
    for round_number in range(3):
        worker.append("noise", channel="busy")
        tail = format_id(worker.hub.window.position)
        beat = stream.turn()
        while not beat or beat[0].id != tail:
            beat = stream.turn()
        assert beat[0].event == "heartbeat"
        assert stream.last_event_id == tail, f"round {round_number}: the cursor of a quiet channel moves on"
    stream.close()
    worker.append("missed", channel="quiet")
    assert worker.open(stream.last_event_id, "quiet").read(1) == ["missed"]


def test_a_stream_with_events_gets_no_heartbeats_beside_them(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_HEARTBEAT=0.5)
    stream = worker.open(None)
    began = time.monotonic()
    for number in numbers(1, 20):
        worker.append(number)
        stream.read(int(number))
        time.sleep(0.02)
    if time.monotonic() - began < 2:  # on a very slow machine the stream really is silent for that long
        assert not [block for block in stream.blocks if block.is_heartbeat]


@pytest.mark.parametrize("reason", ["drain", "lease", "token"])
def test_a_stream_ends_with_what_it_is_owed_and_a_retry(parts: Callable[..., Parts], reason: str) -> None:
    worker = parts()
    first, *_ = worker.append(*numbers(0, 3))
    stream = worker.open(format_id(first), ends_in=float("inf") if reason == "drain" else 0.3, ends_as=reason)
    if reason == "drain":
        stream.stream.end("drain")
    else:
        time.sleep(0.31)
    assert stream.read_to_end() == numbers(1, 3)
    assert stream.blocks[-1].retry is not None, "the last word is when to come back"
    assert worker.ended == [(reason, 3)]
    assert stream.stream.state == "closed"


@pytest.mark.parametrize("by", ["drain", "lease"])
def test_a_stream_ends_even_under_steady_publishing(parts: Callable[..., Parts], by: str) -> None:
    """What the stream is owed is fixed when its end comes, so it does not chase the tail for ever."""
    worker = parts()
    stream = worker.open(None, ends_in=0.2 if by == "lease" else float("inf"))
    publisher = Beating(worker)
    publisher.start()
    try:
        stream.read(1)
        if by == "drain":
            stream.stream.end("drain")
        tail = worker.hub.window.position
        deadline = time.monotonic() + 3
        while stream.turn() is not None:
            assert time.monotonic() < deadline, "it chases the tail"
            if stream.ids[-1] < tail or by == "lease":
                # A client a little slower than the publisher: there is always more at its next turn.
                before = worker.hub.window.position
                eventually(partial(_beyond, worker, before), 5, interval=0)
    finally:
        publisher.stop()
    assert len(set(stream.ids)) == len(stream.ids)


def _beyond(worker: Parts, position: int) -> bool:
    return worker.hub.window.position > position


def test_a_client_that_leaves_leaves_nothing_behind(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_HEARTBEAT=0.02)
    streams = [worker.open(None, "a", f"own-{n}") for n in range(5)]
    worker.append("1")
    for stream in streams:
        stream.read(1)
        stream.turn()
        stream.close()
    assert worker.ended == [("client", 1)] * 5
    assert not worker.hub.pulling and not worker.hub.groups
    assert worker.hub.admission.streams == 0


def test_a_cursor_that_retention_overtakes_ends_the_stream_and_resumes_with_a_reset(
    parts: Callable[..., Parts], tmp_path: Path
) -> None:
    worker = parts(f"sqlite:///{tmp_path}/h.db", SSE_WINDOW_BYTES=1024, SSE_RETAIN_EVENTS=10)
    stream = worker.open(None)
    worker.append("0")
    stream.read(1)
    worker.append(*numbers(1, 40))
    worker.log.trim_all()
    assert stream.read_to_end() == ["0"]
    assert stream.blocks[-1].retry is not None, "the last word is when to come back"
    assert worker.ended == [("fell-behind", 1)]
    again = worker.open(stream.last_event_id)
    assert [block.event for block in again.blocks] == ["heartbeat", "stream-reset"]
    assert again.read(10) == numbers(31, 40)


def test_heartbeats_go_on_during_a_log_outage_and_the_replay_after_it(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_WINDOW_BYTES=1024, SSE_HEARTBEAT=0.1)
    start, *_ = worker.append(*numbers(0, 12))
    stream = worker.open(format_id(start))
    worker.log.down = True
    beat = stream.turn()
    assert beat and beat[0].event == "heartbeat"
    assert beat[0].id == format_id(start), "a heartbeat says how far the stream is, not how far the log is"
    worker.log.down = False
    assert stream.read(12) == numbers(1, 12)


def test_a_replay_goes_on_unprompted_after_a_log_outage(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_WINDOW_BYTES=1024)  # and no heartbeat for an hour
    start, *_ = worker.append(*numbers(0, 12))
    stream = worker.open(format_id(start))
    worker.log.down = True
    with ThreadPoolExecutor() as thread:
        replay = thread.submit(stream.read, 12)
        eventually(lambda: worker.log.asked["read"], 5)
        assert worker.hub.status().streams == {"replaying": 1}, "it has not been sent what it missed"
        worker.log.down = False
        assert replay.result(10) == numbers(1, 12)
    worker.append("live")
    stream.read(13)
    assert worker.hub.stats.replayed == 12 and sum(worker.hub.stats.delivery.counts) == 0, "that one is still going out"


def test_a_block_that_is_in_no_log_is_sent_once(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None)
    stream.stream.push(heartbeat_block(1, 7))
    worker.append("after")
    assert stream.read(1) == ["after"]
    assert [block.data for block in stream.blocks if block.event == "heartbeat"].count("7") == 1


def test_an_event_postpones_the_next_heartbeat(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None)
    stream.stream.beat -= 100.0
    before = time.monotonic()
    worker.append("1")
    stream.read(1)
    assert stream.stream.beat >= before


def test_a_stream_that_is_told_to_end_twice_ends_for_the_first_reason(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None)
    stream.stream.end("drain")
    stream.stream.end("replaced")
    stream.read_to_end()
    assert worker.ended == [("drain", 0)]


def test_a_stream_whose_connection_is_lost_ends_with_the_reason_that_its_server_gives(
    parts: Callable[..., Parts],
) -> None:
    worker = parts()
    first, second = worker.open(None), worker.open(None)
    first.stream._why_lost = lambda: "reset"
    worker.append("1")
    for stream in (first, second):
        stream.read(1)
    group = first.stream.group
    first.close()
    assert worker.ended == [("reset", 0)]
    assert list(group.waiters) == [second.stream], "nobody wakes what has gone"


def test_events_and_bytes_are_counted_as_sent(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_HEARTBEAT=0.02)
    first, *_ = worker.append(*numbers(0, 4))
    stream: Pulled = worker.open(format_id(first))
    stream.read(4)
    stream.turn()
    worker.append("5")
    stream.read(5)
    stream.turn()  # a chunk counts as sent once the server asks for the next one
    stream.close()
    stats = worker.hub.stats
    assert (stats.delivered, stats.replayed, worker.ended) == (5, 4, [("client", 5)])


def test_the_age_of_written_events_is_observed_except_in_a_replay(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_HEARTBEAT=0.02)
    first, *_ = worker.append(*numbers(0, 4))
    stream = worker.open(format_id(first))
    stream.read(4)
    stream.turn()
    delivery = worker.hub.stats.delivery
    assert sum(delivery.counts) == 0
    began = time.time()
    worker.append("5", "6")
    stream.read(6)
    stream.turn()
    assert sum(delivery.counts) == 2
    assert 0 < delivery.total <= 2 * (time.time() - began + 0.001)
    stream.close()


def test_the_first_of_a_groups_streams_reports_a_traced_delivery(
    parts: Callable[..., Parts], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "headwater.delivery")
    worker = parts()
    streams = [worker.open(None, "a") for _ in range(3)]
    replays = worker.open("earliest", "a", since=True)
    worker.append("before")
    for stream in (*streams, replays):
        stream.read(1)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    (position,) = worker.log.append([Event("a", "traced")], trace=f"00-{trace}-00f067aa0ba902b7-01")
    worker.reach(position)
    for stream in (*streams, replays):
        stream.read(2)
    worker.append("after")
    for stream in (*streams, replays):
        stream.read(3)  # a chunk counts as written once the server asks for the next one
    (line,) = [record.getMessage() for record in caplog.records]
    begin = f"delivery trace={trace} id={format_id(position)} events=1 channels=a streams=4 latency="
    assert line.startswith(begin)


def test_a_stream_lets_others_run_while_it_finds_page_after_page_without_its_type(
    parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = parts()
    start = format_id(worker.hub.window.position)
    pages = 4 * PAGES_PER_TURN
    others = [Event("a", "x" * (PAGE_BYTES // 4)) for _ in range(4 * pages)]
    worker.reach(worker.log.append([*others, Event("a", "rare", "rare")])[-1])
    breaths = list[int]()
    monkeypatch.setattr("sse.streams.pull.breathe", lambda: breaths.append(1))
    assert worker.open(start, types=frozenset({"rare"})).read(1) == ["rare"]
    assert len(breaths) >= 4


def test_a_stream_that_is_not_taken_over_keeps_its_lease(parts: Callable[..., Parts]) -> None:
    worker = parts()
    group = worker.hub.join(Subscription(frozenset({"a"})))
    now = time.monotonic()
    stream = Stream(group, 7, now=now, ends_at=now + 9, ends_as="token", client="c", request_id="r")
    pulled = PullStream.instead_of(stream, worker.hub, hung_up=None, why_lost=None)
    kept = ("group", "cursor", "opened", "ends_at", "ends_as", "client", "request_id")
    assert [getattr(pulled, name) for name in kept] == [getattr(stream, name) for name in kept]
