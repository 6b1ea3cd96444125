"""Where a stream begins, for every kind of cursor, over real logs; and what it is sent then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sse.events.model import Event, format_id, make_position
from sse.log import LogUnavailable
from sse.streams.replay import PAGE_EVENTS
from sse.streams.window import LOOK
from tests.sse.worker_parts import THREE_FRAMES, Parts, numbers, reset_of
from tests.support.wait import eventually

# ── where a stream begins ─────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_without_a_cursor_begins_at_the_workers_position(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.append(*numbers(1, 5))
    stream = worker.open(None)
    assert stream.start[:2] == (worker.hub.window.position, None)
    assert stream.last_event_id == format_id(worker.hub.window.position)
    worker.append("6")
    assert stream.read(1) == ["6"]


@pytest.mark.parametrize("window", [pytest.param(10**7, id="in the window"), pytest.param(THREE_FRAMES, id="below")])
def test_every_cursor_within_the_log_is_resumed_exactly(parts: Callable[..., Parts], window: int) -> None:
    worker = parts(SSE_WINDOW_BYTES=window)
    before = worker.hub.window.position
    positions = [before, *worker.append(*numbers(1, 12))]
    for seen, position in enumerate(positions):
        stream = worker.open(format_id(position))
        assert stream.start[:2] == (position, None)
        if seen < 12:
            assert stream.read(12 - seen) == numbers(seen + 1, 12)
        worker.hub.leave(stream.stream)


def test_a_resume_inside_the_window_does_not_ask_the_log(parts: Callable[..., Parts]) -> None:
    worker = parts()
    first, *_ = worker.append(*numbers(1, 12))
    before = worker.log.reads
    for _ in range(50):
        stream = worker.open(format_id(first))
        stream.read(11)
        stream.close()
    assert worker.log.reads == before, "the window has it all"


@pytest.mark.parametrize("text", ["", "nonsense", "1-", "-1", "1-2-3", "１-1", "9" * 1000, "0x1-0", " 1-1", "1-1\n"])
def test_a_malformed_cursor_gets_a_reset_and_everything_retained(parts: Callable[..., Parts], text: str) -> None:
    worker = parts()
    before = worker.hub.window.position
    positions = worker.append(*numbers(1, 3))
    stream = worker.open(text)
    assert reset_of(stream) == {
        "reason": "malformed",
        "requested": text[:64].replace("１", "?").replace("\n", "?"),
        "oldest": format_id(positions[0]),
        "latest": format_id(positions[-1]),
    }
    assert stream.start.cursor == before
    assert stream.read(3) == numbers(1, 3)


def test_a_cursor_from_the_future_gets_a_reset_unknown_and_everything_retained(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.append(*numbers(1, 3))
    future = format_id(make_position(time.time_ns() // 1_000_000 + 60_000))
    stream = worker.open(future)
    assert (reset_of(stream) or {})["reason"] == "unknown"
    assert (reset_of(stream) or {})["requested"] == future
    assert stream.read(3) == numbers(1, 3)


def test_the_moment_right_now_is_not_the_future(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.append("old")

    def now() -> int:
        return make_position(time.time_ns() // 1_000_000)

    eventually(lambda: now() > worker.hub.window.position, message="the event's own millisecond lasts")
    stream = worker.open(format_id(now()))
    assert stream.start[:2] == (worker.hub.window.position, None)
    worker.append("new")
    assert stream.read(1) == ["new"]


def test_a_trimmed_cursor_gets_a_reset_expired_and_everything_retained(
    parts: Callable[..., Parts],
) -> None:
    worker = parts(SSE_RETAIN_EVENTS=5, SSE_WINDOW_BYTES=THREE_FRAMES)
    positions = worker.append(*numbers(1, 12))
    worker.log.trim_all()
    stream = worker.open(format_id(positions[3]))
    assert reset_of(stream) == {
        "reason": "expired",
        "requested": format_id(positions[3]),
        "oldest": format_id(positions[7]),
        "latest": format_id(positions[11]),
    }
    assert stream.last_event_id == format_id(positions[3]), "it goes on from its own cursor"
    assert stream.read(5) == numbers(8, 12)


@pytest.mark.parametrize("window", [pytest.param(10**7, id="in the window"), pytest.param(THREE_FRAMES, id="below")])
def test_a_cursor_from_before_a_loss_gets_a_reset_expired_and_what_follows_it_once(
    parts: Callable[..., Parts], window: int
) -> None:
    worker = parts(SSE_WINDOW_BYTES=window)
    positions = worker.append(*numbers(1, 12))
    worker.hub.window.lost = positions[8]
    for seen in (3, 8):  # it missed all or some of the lost events; nobody can tell
        stream = worker.open(format_id(positions[seen - 1]))
        assert (reset_of(stream) or {})["reason"] == "expired"
        assert stream.last_event_id == format_id(positions[seen - 1])
        assert stream.read(12 - seen) == numbers(seen + 1, 12)
    stream = worker.open(format_id(positions[8]))
    assert reset_of(stream) is None, "told once"
    assert stream.read(3) == numbers(10, 12)
    assert reset_of(worker.open("earliest", since=True)) is None, "who asks for what there is misses nothing"


def test_the_newest_trimmed_event_as_a_cursor_has_missed_nothing(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_RETAIN_EVENTS=5, SSE_WINDOW_BYTES=THREE_FRAMES)
    positions = worker.append(*numbers(1, 12))
    worker.log.trim_all()
    stream = worker.open(format_id(positions[6]))
    assert reset_of(stream) is None
    assert stream.read(5) == numbers(8, 12)


def test_a_cursor_from_before_the_log_gets_a_reset_before_log_while_nothing_was_lost(
    parts: Callable[..., Parts],
) -> None:
    worker = parts(SSE_RETAIN_EVENTS=2)
    stream = worker.open("1000000-0")
    assert reset_of(stream) == {
        "reason": "before-log",
        "requested": "1000000-0",
        "oldest": None,
        "latest": format_id(worker.hub.window.position),
    }
    worker.append("first")
    assert stream.read(1) == ["first"]
    again = worker.open("1000000-0")
    assert (reset_of(again) or {})["reason"] == "before-log" and again.read(1) == ["first"]
    worker.append("second", "third")
    worker.log.trim_all()
    assert (reset_of(worker.open("1000000-0")) or {})["reason"] == "expired", "one has gone that it has not seen"


@pytest.mark.parametrize("window", [pytest.param(10**7, id="window"), pytest.param(THREE_FRAMES, id="log")])
@pytest.mark.parametrize("types", [pytest.param(None, id="all types"), pytest.param(frozenset({"x"}), id="one type")])
def test_a_replay_is_limited_to_the_newest_events(
    parts: Callable[..., Parts], window: int, types: frozenset[str] | None
) -> None:
    worker = parts(SSE_REPLAY_LIMIT=10, SSE_WINDOW_BYTES=window)
    positions = worker.append(*numbers(1, 30), event="x")
    stream = worker.open(format_id(positions[4]), types=types)
    assert (reset_of(stream) or {})["reason"] == "too-far"
    assert stream.last_event_id == format_id(positions[19])
    assert stream.read(10) == numbers(21, 30)
    exactly = worker.open(format_id(positions[19]), types=types)
    assert reset_of(exactly) is None, "exactly as many as are allowed"


def test_the_replay_limit_counts_only_events_of_the_streams_types(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_REPLAY_LIMIT=3)
    (start,) = worker.append("begin")
    for number in numbers(1, 30):
        worker.append(number, channel="noise")
    worker.append("rare", event="x")
    assert worker.open(format_id(start)).read(1) == ["rare"]
    assert reset_of(worker.open(format_id(start), "a", types=frozenset({"x"}))) is None
    assert (reset_of(worker.open(format_id(start), "a", "noise")) or {})["reason"] == "too-far"


def test_a_resume_of_one_type_lets_others_run_while_it_searches_the_window(
    parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = parts(SSE_REPLAY_LIMIT=10)
    start = worker.hub.window.position
    count = 5 * LOOK
    kinds = ["rare" if n % 500 == 0 else None for n in range(count)]
    worker.reach(worker.log.append([Event("a", str(n), kinds[n]) for n in range(count)])[-1])
    breaths = list[int]()
    monkeypatch.setattr("sse.streams.replay.breathe", lambda: breaths.append(1))
    stream = worker.open(format_id(start), types=frozenset({"rare"}))
    assert len(breaths) == 5
    assert (reset_of(stream) or {})["reason"] == "too-far"
    assert stream.read(10) == [str(n) for n in range(count - 5000, count, 500)]
    breaths.clear()
    newest = format_id(stream.stream.cursor)
    assert reset_of(worker.open(newest, types=frozenset({"rare"}))) is None and not breaths, "nothing is looked at"


def test_earliest_is_everything_retained_and_no_reset(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_RETAIN_EVENTS=5, SSE_WINDOW_BYTES=THREE_FRAMES)
    worker.append(*numbers(1, 12))
    worker.log.trim_all()
    stream = worker.open("earliest", since=True)
    assert reset_of(stream) is None
    assert stream.read(5) == numbers(8, 12)


def test_since_a_millisecond_begins_with_that_millisecond(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.append("before")
    time.sleep(0.005)
    (position,) = worker.append("at")
    worker.append("after")
    stream = worker.open(str(position >> 20), since=True)
    assert reset_of(stream) is None
    assert stream.read(2) == ["at", "after"]


def test_a_reset_is_counted_by_its_reason(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.resolve("nonsense")
    worker.resolve("1-1")
    worker.resolve("1-1")
    assert worker.hub.stats.resets == {"malformed": 1, "before-log": 2}


# ── across workers, and a log in trouble ──────────────────────────────────────────────────────────────────────


def test_a_cursor_from_a_worker_that_is_ahead_is_waited_for(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    ahead, behind = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    behind.log.flowing.clear()
    positions = ahead.append(*numbers(1, 5))
    assert behind.hub.window.position < positions[0]
    woken = threading.Event()
    behind.log.wake = lambda: (woken.set(), behind.log.inner.wake())  # type: ignore[method-assign, assignment]
    threading.Timer(0.2, behind.log.flowing.set).start()
    stream = behind.open(format_id(positions[3]))
    assert woken.is_set(), "its tailer is not left to its next look, a second later"
    assert stream.start[:2] == (positions[3], None), "what its client has seen must not come again"
    assert stream.read(1) == ["5"]


def test_a_worker_that_stays_behind_sends_the_client_away_instead_of_repeating_events(
    tmp_path: Path, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse.streams.replay.SYNC_TIMEOUT", 0.1)
    url = f"sqlite:///{tmp_path}/h.db"
    ahead, behind = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    behind.log.flowing.clear()
    positions = ahead.append("1")
    with pytest.raises(LogUnavailable, match="not caught up"):
        behind.resolve(format_id(positions[0]))


def test_bounds_asked_for_before_an_event_are_not_used_for_clients_that_have_seen_it(
    tmp_path: Path, closing: ExitStack
) -> None:
    """Callers share a request for the log's bounds. One already under way may be older than a cursor."""
    url = f"sqlite:///{tmp_path}/h.db"
    ahead, behind = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    behind.log.flowing.clear()
    asked, answer = threading.Event(), threading.Event()
    bounds = behind.log.inner.bounds

    def slow_bounds() -> Any:
        found = bounds()
        asked.set()
        assert answer.wait(5)
        return found

    behind.log.bounds = slow_bounds  # type: ignore[method-assign]
    starts: list[Any] = []
    others = [threading.Thread(target=lambda: starts.append(behind.resolve("77-0"))) for _ in range(1)]
    for thread in others:
        thread.start()
    assert asked.wait(5)
    (seen,) = ahead.append("seen by the client")
    behind.log.bounds = bounds  # type: ignore[method-assign]
    resumed: list[Any] = []
    client = threading.Thread(target=lambda: resumed.append(behind.resolve(format_id(seen))))
    client.start()
    time.sleep(0.1)  # it joins the request under way, or makes one of its own
    answer.set()
    time.sleep(0.1)  # with the old answer it would begin here, before events that its client has seen
    behind.log.flowing.set()
    for thread in (*others, client):
        thread.join(5)
    assert resumed[0].cursor == seen


def test_streams_in_the_window_open_while_the_log_is_down_and_others_are_sent_away(
    parts: Callable[..., Parts],
) -> None:
    worker = parts(SSE_WINDOW_BYTES=5 * 400)
    positions = worker.append(*numbers(1, 12))
    worker.log.down = True
    assert worker.resolve(None)[:2] == (positions[-1], None)
    assert worker.resolve(format_id(positions[-2]))[:2] == (positions[-2], None)
    for needs_the_log in (format_id(positions[0]), "nonsense", format_id(positions[-1] + 1)):
        with pytest.raises(LogUnavailable):
            worker.resolve(needs_the_log)


# ── what a stream is sent ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("window", [pytest.param(10**7, id="window"), pytest.param(THREE_FRAMES, id="log")])
def test_a_stream_of_several_channels_is_in_id_order_across_them_and_keeps_its_types(
    parts: Callable[..., Parts], window: int
) -> None:
    worker = parts(SSE_WINDOW_BYTES=window)
    start = format_id(worker.hub.window.position)
    for number in range(60):
        worker.append(str(number), channel="abc"[number % 3], event="xy"[number % 2])
    stream = worker.open(start, "a", "c", types=frozenset({"y"}))
    expected = [str(n) for n in range(60) if n % 3 != 1 and n % 2 == 1]
    assert stream.read(len(expected)) == expected
    assert stream.ids == sorted(stream.ids)


def test_a_replay_of_many_pages_from_the_log_is_complete(parts: Callable[..., Parts]) -> None:
    worker = parts(SSE_WINDOW_BYTES=THREE_FRAMES)
    start = format_id(worker.hub.window.position)
    count = 2 * PAGE_EVENTS + 7
    worker.log.append([Event("ab"[n % 2], str(n)) for n in range(count)])
    assert worker.open(start, "a", "b").read(count) == numbers(0, count - 1)


def test_events_published_while_an_empty_page_is_read_are_not_skipped(
    parts: Callable[..., Parts],
) -> None:
    """An empty page shows that nothing was there *when it was read*. A stream may share an earlier read of another stream,
    and be owed more."""
    worker = parts(SSE_WINDOW_BYTES=THREE_FRAMES)
    start = worker.hub.window.position
    worker.append(*numbers(1, 12), channel="noise")  # moves the window's floor above `start`
    subscription = worker.open(format_id(start), "quiet").stream.group.subscription
    read, go_on = threading.Event(), threading.Event()

    def slowly(channels: Any, after: int, records: Any) -> None:
        if channels == subscription.channels and not read.is_set():
            read.set()
            assert go_on.wait(5)

    worker.log.on_read = slowly
    pages: list[Any] = []
    first = threading.Thread(
        target=lambda: pages.append(worker.hub.replay.read_page(subscription, start, worker.hub.window.position))
    )
    first.start()
    assert read.wait(5)
    (published,) = worker.append("not to be skipped", channel="quiet")
    tail = worker.hub.window.position
    second = threading.Thread(target=lambda: pages.append(worker.hub.replay.read_page(subscription, start, tail)))
    second.start()
    time.sleep(0.1)  # it shares the first stream's read, or begins its own
    go_on.set()
    first.join(5)
    second.join(5)
    for page in pages:
        assert page.position < published or [frame.position for frame in page.frames] == [published]
