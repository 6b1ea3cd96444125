"""The contract of channels, for every engine: patterns, closing, erasing, listing, and notes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sse.events.markers import own_event
from sse.events.model import Event, format_id
from sse.log import ChannelClosed, ChannelInfo, IdempotencyConflict, Log
from tests.sse.log.conftest import Follower, Place, data, events, fill, trim_all
from tests.support.wait import eventually

LIMIT, BYTES = 1000, 1 << 30


# ── patterns ────────────────────────────────────────────────────────────────────────────────────────────


NAMES = ["a", "a:1", "a:2", "b", "a:1:x", "ab", "A:1", "a.1", "z"]


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        pytest.param(["a:*"], "124", id="a pattern"),
        pytest.param(["*"], "012345678", id="every channel but reserved ones"),
        pytest.param(["a*"], "012457", id="a prefix that ends anywhere"),
        pytest.param(["a:1*", "b"], "134", id="a pattern and a name"),
        pytest.param(["a:*", "a:1:*", "a:1"], "124", id="overlapping ones count once"),
        pytest.param(["q:*"], "", id="nothing"),
        pytest.param(["_*"], "", id="no pattern reaches a reserved channel"),
        pytest.param(["_control", "z"], "89", id="a name does"),
        pytest.param(["a:*", *(f"x{n}" for n in range(700))], "124", id="many names beside it"),
        pytest.param([*(f"a:{n}*" for n in range(200))], "124", id="many patterns"),
    ],
)
def test_reading_with_patterns_is_filtering(log: Log, channels: list[str], expected: str) -> None:
    written = [Event(channel, str(n)) for n, channel in enumerate(NAMES)]
    positions = log.append([*written, own_event("_control", "revoke", "9")])
    assert "".join(data(log.read(channels, 0, LIMIT, BYTES))) == expected
    assert "".join(data(log.newest(channels, LIMIT, BYTES))) == expected
    assert "".join(data(log.read(channels, positions[1], 2, BYTES))) == "".join(n for n in expected if n > "1")[:2]
    assert "".join(data(log.newest(channels, 2, BYTES))) == expected[-2:]
    keep = len(expected) - 1
    floor = log.floor(channels, 0, keep) if expected else None
    assert floor == (positions[int(expected[0])] if expected else None)


def test_reading_a_pattern_of_many_channels_pages_through_all_of_them(log: Log) -> None:
    fill(log, (f"chat:{n % 300}" if n % 3 else f"other:{n}" for n in range(2000)))
    found: list[str] = []
    after = 0
    while page := log.read(["chat:*"], after, 70, 200):
        assert sum(len(record.data) for record in page) <= 204
        found += data(page)
        after = page[-1].position
    assert found == [str(n) for n in range(2000) if n % 3]


# ── closing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_closing_stores_the_last_events_and_then_an_end_for_each_channel(log: Log) -> None:
    before = fill(log, "a")
    positions = log.append(events("b", "c"), close=["d", "b"])
    assert positions == sorted(positions) and len(positions) == 4 and positions[0] > before[0]
    records = log.read(None, before[0], LIMIT, BYTES)
    assert [record.position for record in records] == positions
    assert [(r.channel, r.event, r.data) for r in records[2:]] == [
        ("b", "stream-end", '{"channel":"b"}'),
        ("d", "stream-end", '{"channel":"d"}'),
    ]
    assert log.closed(["a", "b", "c", "d", "b*", "nobody"]) == {"b": positions[2], "d": positions[3]}
    assert log.closed([]) == {}


def test_a_channel_is_closed_without_an_event(log: Log) -> None:
    (end,) = log.append([], close=["a"])
    assert log.closed(["a"]) == {"a": end}
    assert log.bounds().latest == end


@pytest.mark.parametrize(
    ("channels", "close"),
    [
        pytest.param("a", [], id="an event"),
        pytest.param("xax", [], id="one event among others"),
        pytest.param("", ["a"], id="closing it again"),
        pytest.param("x", ["x", "a"], id="closing it beside others"),
    ],
)
def test_a_closed_channel_takes_nothing(log: Log, channels: str, close: list[str]) -> None:
    log.append(events("a"), close=["a"])
    before = log.bounds()
    with pytest.raises(ChannelClosed) as refusal:
        log.append(events(*channels), close=close, key="k", digest=b"1")
    assert refusal.value.channel == "a"
    assert log.bounds() == before and log.closed(["x", "a"]).keys() == {"a"}
    assert len(log.append(events("b"), key="k", digest=b"2")) == 1, "its key is free"


def test_a_key_that_is_known_answers_for_a_channel_that_was_closed_since(log: Log) -> None:
    first = log.append(events("a", "b"), key="k", digest=b"1", close=["a"])
    assert len(first) == 3
    assert log.append(events("a", "b"), key="k", digest=b"1", close=["a"]) == first
    with pytest.raises(IdempotencyConflict):
        log.append(events("a", "b"), key="k", digest=b"2")
    assert len(log.read(None, 0, LIMIT, BYTES)) == 3


def test_of_many_who_close_a_channel_one_does_and_no_event_comes_after_its_end(log: Log) -> None:
    barrier = threading.Barrier(12)

    def use(n: int) -> str:
        barrier.wait(10)
        try:
            if n % 4:
                for _ in range(20):
                    log.append(events("a"))
            else:
                log.append(events("a"), close=["a"])
                return "closed it"
        except ChannelClosed:
            return "refused"
        return "in time"

    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(use, range(12)))
    assert outcomes.count("closed it") == 1
    records = log.read(None, 0, LIMIT, BYTES)
    assert [n for n, record in enumerate(records) if record.event == "stream-end"] == [len(records) - 1]


def test_closing_is_known_to_other_workers_and_after_a_restart(shared_place: Place) -> None:
    log, other = shared_place.open(), shared_place.open()
    other.append(events("a"))
    (_, end) = log.append(events("a"), close=["a"])
    with pytest.raises(ChannelClosed):
        other.append(events("a"))
    assert other.closed(["a"]) == {"a": end}
    log.close()
    other.close()
    again = shared_place.open()
    assert again.closed(["a"]) == {"a": end}
    with pytest.raises(ChannelClosed):
        again.append(events("b", "a"))


def test_a_channel_stays_closed_when_its_records_are_trimmed(place: Place) -> None:
    log = place.open(retain_events=1)
    log.append(events("a"), close=["a"])
    fill(log, "b")
    trim_all(log)
    assert log.read(["a"], 0, LIMIT, BYTES) == []
    with pytest.raises(ChannelClosed):
        log.append(events("a"))
    (info,) = log.channels("a")
    assert info == ChannelInfo("a", 0, 0, None, None, True)


# ── erasing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_erasing_removes_a_channel_and_leaves_a_marker(log: Log) -> None:
    positions = fill(log, "abacaba")
    erased = log.erase("a")
    assert erased.events == 4 and erased.through > positions[-1]
    records = log.read(None, 0, LIMIT, BYTES)
    assert "".join(data(records[:-1])) == "135"
    marker = records[-1]
    assert (marker.position, marker.channel, marker.event) == (erased.through, "a", "stream-reset")
    assert json.loads(marker.data) == {
        "reason": "erased",
        "channel": "a",
        "requested": "",
        "oldest": None,
        "latest": format_id(erased.through),
    }
    assert log.read(["a"], 0, LIMIT, BYTES) == [marker]
    bounds = log.bounds()
    assert bounds.latest == bounds.erased == erased.through and bounds.oldest == positions[1]
    assert bounds.trimmed < positions[0] and bounds.complete, "what was erased was not trimmed"
    assert log.gone(["a"], 0) == log.gone(["*"], 0) == log.gone(None, 0) == 0


def test_an_erased_channel_is_open_again_and_can_be_erased_again(log: Log) -> None:
    log.append(events("a", "a"), close=["a"])
    first = log.erase("a")
    assert first.events == 2, "its end was no event"
    assert log.closed(["a"]) == {}
    (position,) = log.append(events("a"))
    assert position > first.through
    second = log.erase("a")
    assert second.events == 1
    assert [record.position for record in log.read(["a"], 0, LIMIT, BYTES)] == [second.through]


def test_a_marker_is_above_what_it_erased_whatever_the_clock_says(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    (position,) = log.append(events("a"))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    through = log.erase("a").through
    assert through > position
    (end,) = log.append([], close=["a"])
    assert end > through


def test_erasing_a_channel_without_events_leaves_a_marker_too(log: Log) -> None:
    erased = log.erase("nobody")
    assert erased.events == 0
    assert [record.channel for record in log.read(None, 0, LIMIT, BYTES)] == ["nobody"]
    assert log.channels() == []


def test_erasing_forgets_no_key(log: Log) -> None:
    first = log.append(events("a"), key="k", digest=b"1")
    log.erase("a")
    assert log.append(events("a"), key="k", digest=b"1") == first
    assert data(log.read(["a"], first[0], LIMIT, BYTES))[1:] == []


def test_erasing_a_channel_leaves_its_namesakes_alone(log: Log) -> None:
    fill(log, ["a", "a:1", "A", "ab", "a"])
    assert log.erase("a").events == 2
    assert data(log.read(["*"], 0, LIMIT, BYTES))[:-1] == ["1", "2", "3"]


def test_follower_is_handed_the_marker_and_what_is_published_meanwhile(
    log: Log, follow: Callable[..., Follower]
) -> None:
    follower = follow(log)
    fill(log, "a" * 700 + "b")
    follower.wait_for(701)
    stop = threading.Event()
    stored: list[int] = []

    def publish() -> None:
        while not stop.is_set():
            stored.extend(fill(log, "ab"))

    with ThreadPoolExecutor(2) as pool:
        publishers = [pool.submit(publish) for _ in range(2)]
        eventually(lambda: len(stored) > 20)
        erased = log.erase("a")
        seen = len(stored)
        eventually(lambda: len(stored) > seen + 20)
        stop.set()
        for publisher in publishers:
            publisher.result(10)
    eventually(lambda: follower.records[-1].position >= max(stored), message=lambda: str(follower.error))
    followed = {record.position for record in follower.records}
    assert erased.through in followed
    # Of the erased ones a follower may have got none; of everything else it has all, in order, once.
    kept = [record.position for record in log.read(None, 0, 10**6, BYTES)]
    assert followed >= {position for position in kept if position in set(stored)}
    positions = [record.position for record in follower.records]
    assert positions == sorted(set(positions))


def test_a_follower_that_was_behind_an_erasure_gets_what_is_left(log: Log, follow: Callable[..., Follower]) -> None:
    positions = fill(log, "abab")
    through = log.erase("a").through
    follower = follow(log, positions[0])
    follower.wait_for(3)
    assert [record.position for record in follower.records] == [positions[1], positions[3], through]


def test_erasing_is_seen_by_other_workers_and_after_a_restart(
    shared_place: Place, follow: Callable[..., Follower]
) -> None:
    log, other = shared_place.open(), shared_place.open()
    follower = follow(other)
    fill(log, "ab")
    follower.wait_for(2)
    erased = other.erase("a")
    follower.wait_for(3)
    assert log.read(["a"], 0, LIMIT, BYTES) == follower.records[2:]
    other.close()
    log.close()
    again = shared_place.open()
    assert again.read(["a"], 0, LIMIT, BYTES)[0].position == erased.through
    assert fill(again, "a")[0] > erased.through


# ── listing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_channels_are_listed_with_what_they_hold(log: Log) -> None:
    assert log.channels() == []
    log.append([own_event("_control", "revoke", "{}")])
    a, b, a2, z = log.append([Event("a", "xé𝄞"), Event("b", ""), Event("a", "12"), Event("z", "1", "kind")], close=[])
    log.append([], close=["z", "c"])
    assert log.channels() == [
        ChannelInfo("a", 2, 9, a, a2, False),
        ChannelInfo("b", 1, 0, b, b, False),
        ChannelInfo("c", 0, 0, None, None, True),
        ChannelInfo("z", 1, 1, z, z, True),
    ]
    log.erase("a")
    log.erase("c")
    assert [info.channel for info in log.channels()] == ["b", "z"]
    (a3,) = log.append([Event("a", "123")])
    assert log.channels("a") == [ChannelInfo("a", 1, 3, a3, a3, False)]


@pytest.mark.parametrize(
    ("prefix", "after", "limit", "expected"),
    [
        pytest.param("", "", 1000, ["A", "a", "a-b", "a:1", "a:10", "a:2", "a_", "ab", "b"], id="all, by code point"),
        pytest.param("a:", "", 1000, ["a:1", "a:10", "a:2"], id="a prefix"),
        pytest.param("a:1", "", 1000, ["a:1", "a:10"], id="a name is a prefix of itself"),
        pytest.param("", "a:1", 2, ["a:10", "a:2"], id="a page"),
        pytest.param("a", "a:10", 1000, ["a:2", "a_", "ab"], id="a page of a prefix"),
        pytest.param("a:", "b", 1000, [], id="behind the prefix"),
        pytest.param("b", "a", 1000, ["b"], id="before the prefix"),
        pytest.param("a%", "", 1000, [], id="no wildcards"),
        pytest.param("_", "", 1000, [], id="reserved ones never"),
        pytest.param("", "", 0, [], id="none asked for"),
    ],
)
def test_the_list_is_paged_by_name(log: Log, prefix: str, after: str, limit: int, expected: list[str]) -> None:
    fill(log, ["b", "a:2", "a:10", "a", "a:1", "ab", "A", "a_", "a-b"])
    log.append([own_event("_canary", "x", "y")])
    assert [info.channel for info in log.channels(prefix, after, limit)] == expected


def test_more_channels_than_a_page_are_all_listed(log: Log) -> None:
    names = sorted(f"chat:{n}" for n in range(2500))
    fill(log, names)
    found: list[str] = []
    while page := log.channels(after=found[-1] if found else "", limit=5000):
        assert len(page) <= 1000
        found += [info.channel for info in page]
    assert found == names


def test_the_list_follows_trimming(place: Place) -> None:
    log = place.open(retain_events=3)
    positions = log.append([Event(channel, "é" * n) for n, channel in enumerate("abcaab")])
    assert len(log.channels()) == 3
    trim_all(log)
    assert log.channels() == [
        ChannelInfo("a", 2, 14, positions[3], positions[4], False),
        ChannelInfo("b", 1, 10, positions[5], positions[5], False),
    ]


def test_the_list_is_the_same_for_every_worker_and_after_a_restart(shared_place: Place) -> None:
    logs = [shared_place.open(retain_events=50), shared_place.open(retain_events=50)]
    for turn in range(6):
        fill(logs[turn % 2], ["a", f"b{turn % 3}"] * 10)
        trim_all(logs[0])
        assert logs[0].channels() == logs[1].channels()
    found = logs[0].channels()
    assert sum(info.events for info in found) == 50
    for log in logs:
        log.close()
    assert shared_place.open().channels() == found
