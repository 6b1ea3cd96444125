"""What a worker does with the service's own records: erasure and revocation of generator streams, also of a worker that
was cut off from the log meanwhile; and callbacks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sse.events.markers import own_event
from sse.events.model import Event, format_id
from sse.events.names import CONTROL_CHANNEL
from sse.log import LogUnavailable, RetainRule
from sse.streams.control import Revocation
from sse.streams.group import Group, Subscription
from sse.streams.stream import Stream
from tests.sse.log.redis_place import redis_url
from tests.sse.worker_parts import THREE_FRAMES, Parts, Pulled, numbers
from tests.support.wait import eventually

ONE_ENGINE = pytest.mark.parametrize("url", ["memory:"])


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh log of each engine."""
    if request.param == "redis":
        return redis_url(request)
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/h.db"


def control(worker: Parts, kind: str, **data: Any) -> int:
    """Append a control record; return once the hub has read it."""
    (position,) = worker.log.inner.append([own_event(CONTROL_CHANNEL, kind, json.dumps(data))])
    if worker.log.flowing.is_set():
        worker.reach(position)
    return position


def cut_off(worker: Parts) -> None:
    """Take the log away from a worker; others still have it."""
    follows = worker.log.asked["follow"]
    worker.log.down = True
    worker.log.inner.append([Event("else", "x")])
    eventually(lambda: worker.log.asked["follow"] > follows, 5)


def erased_in(stream: Pulled) -> list[str]:
    """Return the channels of which the client was told that they were erased."""
    resets = [json.loads(block.data or "") for block in stream.blocks if block.event == "stream-reset"]
    return [reset["channel"] for reset in resets if reset["reason"] == "erased"]


# ── erasure ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("window", [pytest.param(10**7, id="window"), pytest.param(THREE_FRAMES, id="log")])
def test_streams_are_told_of_an_erased_channel_and_go_on(parts: Callable[..., Parts], window: int) -> None:
    worker = parts(SSE_WINDOW_BYTES=window)
    start = worker.hub.window.position
    live, wide, other = worker.open(None), worker.open(None, "*"), worker.open(None, "b")
    worker.append("1", "2")
    worker.append("kept", channel="b")
    assert live.read(2) == ["1", "2"]
    worker.reach(worker.log.erase("a").through)
    worker.append("3")
    worker.append("end", channel="b")
    assert live.read(3) == ["1", "2", "3"] and erased_in(live) == ["a"]
    assert wide.read(3) == ["kept", "3", "end"] and erased_in(wide) == ["a"]
    assert other.read(2) == ["kept", "end"] and erased_in(other) == []
    resumed = worker.open(format_id(start), "a", "b")
    assert resumed.start.reset is None, "the marker tells, in its place"
    assert resumed.read(3) == ["kept", "3", "end"] and erased_in(resumed) == ["a"]


@pytest.mark.parametrize("trimmed", [False, True], ids=["marker there", "marker trimmed"])
def test_a_worker_that_was_cut_off_during_an_erasure_does_not_serve_it_afterwards(
    tmp_path: Path, closing: ExitStack, trimmed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it was away for so long that the log has trimmed the marker."""
    monkeypatch.setattr("sse.log.rules.RULE_GRACE", 0)
    url = f"sqlite:///{tmp_path}/h.db"
    other, away = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    first, *_ = away.append(*numbers(1, 5))
    away.append("kept", channel="b")
    cut_off(away)
    through = other.log.erase("a").through
    if trimmed:
        other.log.retain(10**6, 10**6, [RetainRule("a", 0, None)])
        other.log.trim_all()
        assert not other.log.read(["a"], 0, 10, 10**6)
        away.hub.tailer.answered_at -= 60
    away.log.down = False
    away.reach(through)
    for worker in (away, other):
        stream = worker.open(format_id(first), "a", "b")
        worker.append("new")
        assert stream.read(2) == ["kept", "new"] or stream.data[:2] == ["kept", "new"]
    window = away.hub.window
    held = window.read(["a"], None, window.floor, window.position, 10**9).frames
    assert not [frame for frame in held if frame.text() in numbers(1, 5)]


def test_a_worker_that_stood_still_during_an_erasure_reads_of_it_before_it_serves_anybody(
    tmp_path: Path, closing: ExitStack
) -> None:
    """A stopped process goes on with whatever is ready first: a request that waits, or what its tailer has to read."""
    url = f"sqlite:///{tmp_path}/h.db"
    other, still = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    first, *_ = still.append(*numbers(1, 5))
    still.log.flowing.clear()
    still.hub.tailer.answered_at -= 60
    other.log.erase("a")
    threading.Timer(0.3, still.log.flowing.set).start()
    stream = still.open(format_id(first))
    still.append("new")
    assert stream.read(1) == ["new"] and erased_in(stream) == ["a"]


def test_a_worker_whose_log_is_away_does_not_wait_for_it_to_serve_from_its_window(
    parts: Callable[..., Parts],
) -> None:
    worker = parts()
    first, *_ = worker.append(*numbers(1, 5))
    cut_off(worker)
    worker.hub.tailer.answered_at -= 60
    began = time.monotonic()
    assert worker.open(format_id(first)).read(4) == numbers(2, 5)
    assert time.monotonic() - began < 0.9


def test_a_page_that_was_read_while_its_channel_was_erased_is_read_again(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_WINDOW_BYTES=THREE_FRAMES)
    start = worker.hub.window.position
    worker.append(*numbers(1, 12))
    worker.append("noise", channel="b")
    stream = worker.open(format_id(start))

    def meanwhile(*_: object) -> None:
        worker.log.on_read = None
        worker.reach(worker.log.erase("a").through)
        worker.append("new")

    worker.log.on_read = meanwhile
    assert stream.read(1) == ["new"] and erased_in(stream) == ["a"]


# ── revocation ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_revoked_generator_stream_ends_where_it_is(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_WINDOW_BYTES=10**7)
    start = worker.hub.window.position
    worker.append(*["." * 40_000] * 12)
    mine, other = worker.open(format_id(start)), worker.open(format_id(start))
    mine.stream.owner = "ann"
    assert len(mine.read(2)) < 12 and len(other.read(2)) < 12
    control(worker, "revoke", subject="ann", at=1)
    mine.read_to_end()
    assert len(mine.data) < 12 and mine.blocks[-1].retry is not None
    assert worker.ended[-1][0] == "revoked"
    assert len(other.read(12)) == 12


def test_a_waiting_generator_stream_is_woken_and_ends(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None)
    with ThreadPoolExecutor() as thread:
        end = thread.submit(stream.read_to_end)
        eventually(lambda: worker.hub.status().streams == {"live": 1}, 5)
        control(worker, "revoke", channel="a")
        assert end.result(5) == []
    assert worker.ended == [("revoked", 0)]


@ONE_ENGINE
def test_a_generator_stream_that_was_opening_while_it_was_revoked_ends_too(parts: Callable[..., Parts]) -> None:
    worker = parts()
    opening, other = worker.open(None), worker.open(None)
    opening.stream.owner = "ann"
    control(worker, "revoke", subject="ann")
    assert opening.read_to_end() == [] and worker.ended == [("revoked", 0)]
    worker.append("1")
    assert other.read(1) == ["1"]
    late = worker.open(None)
    late.stream.owner = "ann"
    worker.append("2")
    assert late.read(1) == ["2"], "its access was decided after the revocation"


def test_a_worker_that_was_cut_off_ends_revoked_streams_when_it_is_back(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    other, away = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    stream = away.open(None)
    cut_off(away)
    position = control(other, "revoke", channel="a")
    away.log.down = False
    away.reach(position)
    assert stream.read_to_end() == [] and away.ended == [("revoked", 0)]


def test_a_worker_that_was_cut_off_beyond_the_retention_ends_all_its_streams(
    tmp_path: Path, closing: ExitStack
) -> None:
    """Nobody knows which of them were revoked meanwhile: the record is gone."""
    url = f"sqlite:///{tmp_path}/h.db"
    other = closing.enter_context(Parts(url, SSE_RETAIN_EVENTS=3))
    away = closing.enter_context(Parts(url, SSE_RETAIN_EVENTS=3))
    quiet, opening = away.open(None, "quiet"), away.open(None, "quiet")
    with ThreadPoolExecutor() as thread:
        end = thread.submit(quiet.read_to_end)
        eventually(lambda: away.hub.status().streams == {"live": 1}, 5)
        cut_off(away)
        control(other, "revoke", channel="quiet")
        position = other.append(*numbers(1, 20), channel="loud")[-1]
        other.log.trim_all()
        away.hub.tailer.answered_at -= 60
        away.log.down = False
        away.reach(position)
        assert end.result(5) == [] and opening.read_to_end() == []
    assert away.ended == [("fell-behind", 0)] * 2
    again = away.open(quiet.last_event_id, "quiet")
    assert again.start.reset is None, "and it has missed nothing"


def stream_of(owner: str = "ann", request_id: str = "r1", *selectors: str) -> Stream:
    group = Group(Subscription(frozenset(selectors or ("a",))), 0.0)
    return Stream(group, 0, now=0.0, ends_at=1.0, client="-", owner=owner, request_id=request_id)


@pytest.mark.parametrize(
    ("channel", "selectors", "meets"),
    [
        ("a", ("a",), True),
        ("a", ("b", "a*"), True),
        ("a", ("b", "ab*"), False),
        ("a*", ("abc",), True),
        ("a*", ("b",), False),
        ("ab*", ("a*",), True),
        ("a*", ("ab*",), True),
        ("a*", ("b*",), False),
        ("*", ("b",), True),
        ("*", ("*",), True),
        ("*", ("_stats",), False),
        ("_stats", ("_stats",), True),
        ("_stats", ("*",), False),
    ],
)
def test_a_channel_or_pattern_is_revoked_for_streams_that_may_get_any_of_it(
    channel: str, selectors: tuple[str, ...], meets: bool
) -> None:
    assert Revocation(None, channel, None, 0.0).covers(stream_of("", "", *selectors)) is meets


# ── callbacks ─────────────────────────────────────────────────────────────────────────────────────────────────


@ONE_ENGINE
def test_everybody_who_registered_is_called_back_in_the_order_of_the_records(
    parts: Callable[..., Parts], caplog: pytest.LogCaptureFixture
) -> None:
    worker = parts()
    heard: list[tuple[str, Any]] = []

    def fail(data: dict[str, Any]) -> None:
        raise ValueError("a bug")

    worker.hub.on_control("stop", fail)
    worker.hub.on_control("stop", lambda data: heard.append(("first", data)))
    worker.hub.on_control("stop", lambda data: heard.append(("second", data)))
    worker.hub.on_control("revoke", lambda data: heard.append(("revoke", data)))
    stream = worker.open(None, "*")
    records = [own_event(CONTROL_CHANNEL, "stop", '{"run": 1}'), Event("a", "1", "stop"), Event("a", "2")]
    records += [own_event(CONTROL_CHANNEL, "revoke", '{"subject": "x"}'), own_event(CONTROL_CHANNEL, "else", "{}")]
    records += [own_event(CONTROL_CHANNEL, "stop", "nonsense"), own_event(CONTROL_CHANNEL, "stop", '{"run": 2}')]
    worker.reach(worker.log.append(records)[-1])
    eventually(lambda: len(heard) == 5, 5)
    assert heard == [
        ("first", {"run": 1}),
        ("second", {"run": 1}),
        ("revoke", {"subject": "x"}),
        ("first", {"run": 2}),
        ("second", {"run": 2}),
    ]
    assert stream.read(2) == ["1", "2"], "no stream gets a control record"
    assert "a control record could not be obeyed: stop" in caplog.text


@ONE_ENGINE
def test_a_callback_does_not_hold_the_hubs_lock(parts: Callable[..., Parts]) -> None:
    worker = parts()
    free = threading.Event()

    def callback(data: dict[str, Any]) -> None:
        other = threading.Thread(target=lambda: (worker.hub.lock.acquire(), worker.hub.lock.release(), free.set()))
        other.start()
        other.join(3)

    worker.hub.on_control("stop", callback)
    control(worker, "stop")
    assert free.wait(5)


def test_what_must_be_read_again_is_read_before_the_worker_is_ready_and_after_each_outage(
    tmp_path: Path, closing: ExitStack
) -> None:
    worker = Parts(f"sqlite:///{tmp_path}/h.db")
    returns: list[bool] = []
    fail = [True]

    def back() -> None:
        returns.append(worker.hub.wait_ready(0))
        if fail:
            fail.pop()
            raise LogUnavailable("not yet")

    worker.hub.on_back(back)
    closing.enter_context(worker)
    assert returns == [False, False], "again, because the first one failed"
    cut_off(worker)
    time.sleep(0.05)
    assert len(returns) == 2, "the log is still away"
    worker.log.down = False
    eventually(lambda: len(returns) == 3, 5)
