"""The end of channels: which streams end, when, and which requests have nothing left to get. Generator streams."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sse.events.markers import own_event
from sse.events.model import Event, format_id
from sse.log import LogUnavailable, RetainRule
from sse.streams.ends import MOST_KNOWN
from sse.streams.group import Subscription
from tests.sse.log.redis_place import redis_url
from tests.sse.worker_parts import THREE_FRAMES, Parts, Pulled, Stepped, numbers
from tests.support.wait import eventually

WINDOWS = pytest.mark.parametrize("window", [pytest.param(10**7, id="window"), pytest.param(THREE_FRAMES, id="log")])


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh log of each engine."""
    if request.param == "redis":
        return redis_url(request)
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/h.db"


def close(worker: Parts, *channels: str) -> int:
    """Close channels; return the newest closing position once the hub has read it."""
    position = worker.log.append([], close=channels)[-1]
    worker.reach(position)
    return position


def ends(stream: Pulled) -> list[str]:
    """Read to the end; return the channels of the stream-end events."""
    stream.read_to_end()
    return [json.loads(block.data or "")["channel"] for block in stream.blocks if block.event == "stream-end"]


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_gets_what_it_missed_and_its_channels_end_and_then_ends(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None)
    worker.append("1")
    stream.read(1)
    *_, end = worker.log.append([Event("a", "2"), Event("a", "3")], close=["a"])
    assert ends(stream) == ["a"]
    assert stream.data == numbers(1, 3) and stream.last_event_id == format_id(end)
    assert stream.blocks[-1].retry is not None, "a clean end"
    assert worker.ended[-1][0] == "ended"


def test_a_stream_ends_with_the_last_of_its_channels(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream, other = worker.open(None, "a", "b"), worker.open(None, "a", "b", "c")
    close(worker, "b")
    worker.append("1")
    assert stream.read(1) == ["1"]
    close(worker, "a")
    assert ends(stream) == ["b", "a"]
    worker.append("2", channel="c")
    assert other.read(2) == ["1", "2"], "its third channel is open"


def test_channels_that_are_closed_together_end_a_stream_of_both(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None, "a", "b")
    close(worker, "a", "b")
    assert ends(stream) == ["a", "b"]


def test_a_stream_with_a_pattern_never_ends_by_this(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None, "a*", "b")
    close(worker, "a", "b")
    worker.append("1", channel="ab")
    assert stream.read(1) == ["1"]
    assert [block.event for block in stream.blocks[1:-1]] == ["stream-end"] * 2


@WINDOWS
@pytest.mark.parametrize("since", ["cursor", "earliest"])
def test_a_closed_channel_is_replayed_and_the_stream_ends(parts: Callable[..., Parts], window: int, since: str) -> None:
    worker = parts(SSE_WINDOW_BYTES=window)
    positions = worker.append(*numbers(1, 12))
    close(worker, "a")
    worker.append(*numbers(1, 12), channel="noise")
    stream = worker.open("earliest" if since == "earliest" else format_id(positions[3]), since=True)
    assert ends(stream) == ["a"]
    assert stream.data == numbers(1 if since == "earliest" else 5, 12)
    assert worker.ended[-1][0] == "ended"


def test_a_new_worker_knows_from_the_log_that_a_channel_was_closed(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    first = closing.enter_context(Parts(url))
    first.append("1")
    end = close(first, "a")
    first.append(*numbers(1, 20), channel="noise")
    worker = closing.enter_context(Parts(url, SSE_WINDOW_BYTES=THREE_FRAMES))
    assert worker.hub.closed_channels(["a", "noise", "never"]) == {"a": end}
    assert ends(worker.open(format_id(end - 1))) == ["a"]


def test_an_erased_channel_is_open_again(parts: Callable[..., Parts]) -> None:
    worker = parts()
    close(worker, "a", "b")
    assert set(worker.hub.closed_channels(["a", "b"])) == {"a", "b"}
    worker.reach(worker.log.erase("a").through)
    assert set(worker.hub.closed_channels(["a", "b"])) == {"b"}
    stream = worker.open(None, "a", "b")
    worker.append("again")
    assert stream.read(1) == ["again"]


def test_an_old_event_of_the_markers_type_closes_nothing(parts: Callable[..., Parts]) -> None:
    """Older versions let publishers use the type ``stream-end``."""
    worker = parts()
    stream = worker.open(None)
    worker.reach(worker.log.append([own_event("a", "stream-end", "bye")])[-1])
    assert worker.hub.ends.closed_channels(["a"]) == {}
    worker.append("1")
    assert stream.read(1) == ["1"]


def test_a_plain_stream_is_told_of_the_end_in_a_comment_and_ends(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None, plain=True)
    worker.append("1")
    close(worker, "a")
    stream.read_to_end()
    assert [block.data for block in stream.blocks] == ["1"] and stream.parser.comments == 2
    assert worker.ended[-1][0] == "ended"


# ── requests that have nothing left to get ────────────────────────────────────────────────────────────────────


def over(worker: Parts, text: str | None, cursor: int | None, *channels: str, **form: bool) -> bool:
    return worker.hub.ends.is_over(Subscription(frozenset(channels or ("a",)), **form), text, cursor)


@WINDOWS
def test_a_request_is_over_at_or_beyond_the_end_of_all_its_channels(parts: Callable[..., Parts], window: int) -> None:
    worker = parts(SSE_WINDOW_BYTES=window)
    (event,) = worker.append("1")
    end_of_b = close(worker, "b")
    end = close(worker, "a")
    (later,) = worker.append(*numbers(1, 20), channel="noise")[-1:]
    assert over(worker, None, None), "without a cursor"
    assert over(worker, "x", end) and over(worker, "x", later)
    assert over(worker, "x", end, "a", "b") and over(worker, None, None, "a", "b")
    assert not over(worker, "x", end - 1) and not over(worker, "x", event)
    assert not over(worker, "x", end_of_b, "a", "b")
    assert not over(worker, "earliest", 0)
    assert not over(worker, "nonsense", None)
    assert not over(worker, None, None, "a", "noise")
    assert not over(worker, None, None, "a", "never-used")
    assert not over(worker, None, None, "a*") and not over(worker, "x", later, "a", "*")
    assert not over(worker, None, None, "_canary")


@WINDOWS
def test_a_plain_request_is_over_when_only_markers_follow(parts: Callable[..., Parts], window: int) -> None:
    """Its client has no id of the end marker, and would come again for ever."""
    worker = parts(SSE_WINDOW_BYTES=window)
    first, last = worker.append("1", "2")
    close(worker, "a")
    worker.append(*numbers(1, 20), channel="noise")
    assert over(worker, "x", last, plain=True) and not over(worker, "x", last)
    assert not over(worker, "x", first, plain=True)


def test_a_cursor_from_a_worker_that_has_read_the_end_already_is_over(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    ahead, behind = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    (event,) = ahead.append("1")
    behind.reach(event)
    behind.log.flowing.clear()
    end = close(ahead, "a")
    assert over(behind, "x", end)
    assert not over(behind, "x", event)


def test_while_the_log_is_away_a_request_is_not_over_and_its_stream_ends_once_the_log_answers(
    tmp_path: Path, closing: ExitStack
) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    first = closing.enter_context(Parts(url))
    close(first, "quiet")
    first.append(*numbers(1, 20), channel="noise")
    worker = closing.enter_context(Parts(url, SSE_WINDOW_BYTES=THREE_FRAMES))
    worker.log.down = True
    assert not over(worker, None, None, "quiet")
    stream = worker.open(None, "quiet")
    with ThreadPoolExecutor() as thread:
        end = thread.submit(stream.read_to_end)
        eventually(lambda: worker.hub.status().streams == {"live": 1}, 5)
        worker.log.down = False
        assert end.result(5) == []
    assert worker.ended == [("ended", 0)]


def test_a_client_whose_end_marker_was_trimmed_comes_to_an_end(parts: Callable[..., Parts]) -> None:
    """Nothing would move its cursor, and it would be told ``expired`` for ever."""
    worker = parts(SSE_WINDOW_BYTES=THREE_FRAMES)
    (event,) = worker.append("1")
    end = close(worker, "a")
    worker.append(*numbers(1, 20), channel="noise")
    worker.log.retain(10**6, 10**6, [RetainRule("a", None, 0.0)])
    worker.log.trim_all()
    for text in (format_id(event - 1), "earliest", "nonsense"):
        stream = worker.open(text, since=True)
        stream.read_to_end()
        assert worker.ended[-1][0] == "ended"
        assert stream.start.cursor >= end, "so its next request is over"


# ── what is known, and how ────────────────────────────────────────────────────────────────────────────────────


def test_the_log_is_not_asked_about_channels_in_the_window_and_once_about_others(
    parts: Callable[..., Parts],
) -> None:
    worker = parts()
    worker.append("1")
    close(worker, "b")
    asked = worker.log.asked["closed"]
    assert not over(worker, None, None, "a") and over(worker, None, None, "b")
    assert worker.log.asked["closed"] == asked
    for _ in range(3):
        assert not over(worker, None, None, "c")
    assert worker.log.asked["closed"] == asked + 1
    close(worker, "c")
    assert over(worker, None, None, "c"), "what passes keeps the answer true"


def test_an_answer_of_the_log_does_not_undo_what_passed_meanwhile(parts: Callable[..., Parts]) -> None:
    worker = parts()
    asked, answer = threading.Event(), threading.Event()
    closed = worker.log.inner.closed

    def slow(channels: Collection[str]) -> dict[str, int]:
        found = closed(channels)
        asked.set()
        assert answer.wait(5)
        return found

    worker.log.inner.closed = slow  # type: ignore[method-assign]
    results: list[Any] = []
    caller = threading.Thread(target=lambda: results.append(over(worker, None, None, "c")))
    caller.start()
    assert asked.wait(5)
    worker.append("1", channel="c")
    worker.hub.window.reset(worker.hub.window.position)  # as if other events had evicted it
    end = close(worker, "c")
    worker.hub.window.reset(worker.hub.window.position)
    answer.set()
    caller.join(5)
    assert worker.hub.closed_channels(["c"]) == {"c": end}


def test_an_answer_from_before_all_was_forgotten_is_not_kept(parts: Callable[..., Parts]) -> None:
    """The worker may have lost sight of the log in between."""
    worker = parts()
    closed = worker.log.inner.closed

    def forgetting(channels: Collection[str]) -> dict[str, int]:
        found = closed(channels)
        worker.hub.ends.forget()
        return found

    worker.log.inner.closed = forgetting  # type: ignore[method-assign]
    assert not over(worker, None, None, "c")
    assert not worker.hub.ends._known


def test_many_who_ask_at_once_share_few_questions(parts: Callable[..., Parts]) -> None:
    worker = parts()
    begun = threading.Barrier(40)

    def ask(number: int) -> bool:
        begun.wait(5)
        return over(worker, None, None, f"c{number}")

    go_on = threading.Event()
    closed = worker.log.inner.closed

    def slow(channels: Collection[str]) -> dict[str, int]:
        go_on.wait(0.3)
        return closed(channels)

    worker.log.inner.closed = slow  # type: ignore[method-assign]
    before = worker.log.asked["closed"]
    with ThreadPoolExecutor(40) as threads:
        assert not any(threads.map(ask, range(40)))
    assert worker.log.asked["closed"] - before <= 4


def test_what_is_known_is_bounded() -> None:
    with ExitStack() as closing:
        known = Stepped(closing).hub.ends
        for number in range(MOST_KNOWN + 100):
            known.passed(f"c{number}", number + 1, closed=True)
        assert 0 < len(known._known) <= MOST_KNOWN


def test_the_log_being_away_is_said_to_who_must_know(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.log.down = True
    with pytest.raises(LogUnavailable):
        worker.hub.closed_channels(["c"])
