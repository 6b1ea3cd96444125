"""What every engine must do, whichever it is. conftest.py has the list of engines."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sse.events.model import Event, Record, make_position
from sse.log import Bounds, IdempotencyConflict, Log, LogUnavailable
from tests.sse.log.conftest import Follower, Place, data, events, fill, trim_all
from tests.support.wait import eventually

LIMIT, BYTES = 1000, 1 << 30
EVERY_CHARACTER = "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))


def now() -> int:
    return make_position(time.time_ns() // 1_000_000)


# ── appending ───────────────────────────────────────────────────────────────────────────────────────────


def test_new_log_is_empty_and_knows_when_it_was_made(place: Place) -> None:
    before = now()
    log = place.open()
    oldest, latest, trimmed, lost, began, erased = log.bounds()
    assert oldest is None and latest == trimmed == began and lost == erased == 0 and log.bounds().complete
    assert before <= latest <= now() + 2000 * 2**20  # a server of its own may have a clock of its own
    assert log.read(None, 0, LIMIT, BYTES) == log.newest(None, LIMIT, BYTES) == []
    (first,) = log.append(events("a"))
    assert first > latest
    assert log.bounds() == Bounds(first, first, trimmed, began=began)


def test_what_goes_in_comes_out(log: Log) -> None:
    written = [
        Event("orders", "plain"),
        Event("orders.eu:7_x-y", "", "created", 0),
        Event("o", "\ufeff lines\r\nand\nmore\r", "ünïcode 𝄞", 2**31 - 1),
    ]
    positions = log.append(written)
    assert log.read(None, 0, LIMIT, BYTES) == [
        Record(position, e.channel, e.event, e.retry, e.data) for position, e in zip(positions, written, strict=True)
    ]
    assert all(type(record) is Record for record in log.read(None, 0, LIMIT, BYTES))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\0", id="only NUL"),
        pytest.param("a\0b\0", id="NUL inside and at the end"),
        pytest.param(EVERY_CHARACTER, id="every character of Unicode"),
        pytest.param("'\"; DROP TABLE events; --", id="quotes"),
        pytest.param("x" * 65536, id="64 KiB"),
    ],
)
def test_any_text_comes_out_as_it_went_in(log: Log, text: str) -> None:
    log.append([Event("a", text)])
    assert data(log.read(["a"], 0, LIMIT, BYTES)) == [text]


def test_appending_nothing_stores_nothing(log: Log) -> None:
    before = log.bounds()
    assert log.append([], key="k", digest=b"1") == []
    assert log.bounds() == before
    assert len(log.append(events("a"), key="k", digest=b"2")) == 1


def test_positions_increase_strictly_within_and_between_batches(log: Log) -> None:
    positions = [p for _ in range(50) for p in log.append(events("a", "b", "a"))]
    assert positions == sorted(set(positions))
    assert [record.position for record in log.read(None, 0, LIMIT, BYTES)] == positions


def test_positions_increase_when_the_clock_steps_back(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = log.append(events("a"))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    second, third = log.append(events("a", "a"))
    monkeypatch.undo()
    (fourth,) = log.append(events("a"))
    assert first < second < third < fourth


def test_batches_of_many_threads_stay_whole_and_in_order(log: Log) -> None:
    batches: dict[str, list[int]] = {}

    def publish(thread: int) -> None:
        for n in range(40):
            name = f"{thread}.{n}"
            batches[name] = log.append([Event("a", name)] * 3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, range(8)))
    records = log.read(None, 0, LIMIT, BYTES)
    assert len(records) == 8 * 40 * 3
    for start in range(0, len(records), 3):
        batch = records[start : start + 3]
        assert [record.position for record in batch] == batches[batch[0].data]
    for thread in range(8):
        mine = [batches[f"{thread}.{n}"][0] for n in range(40)]
        assert mine == sorted(mine)


# ── idempotency ─────────────────────────────────────────────────────────────────────────────────────────


def test_same_key_and_content_is_stored_once(log: Log) -> None:
    first = log.append(events("a", "b"), key="k", digest=b"\x00\xff")
    log.append(events("c"))
    assert log.append(events("a", "b"), key="k", digest=b"\x00\xff") == first
    assert len(log.read(None, 0, LIMIT, BYTES)) == 3


def test_same_key_with_another_content_is_a_conflict(log: Log) -> None:
    log.append(events("a"), key="k", digest=b"1")
    with pytest.raises(IdempotencyConflict):
        log.append(events("a"), key="k", digest=b"2")
    assert len(log.read(None, 0, LIMIT, BYTES)) == 1
    assert len(log.append(events("a"), key="K", digest=b"2")) == 1  # keys are told apart exactly


def test_one_key_from_many_threads_is_stored_once_and_conflicts_harm_nobody(log: Log) -> None:
    outcomes: list[list[int] | None] = []
    barrier = threading.Barrier(12)

    def publish(n: int) -> None:
        barrier.wait(10)
        if n % 3 == 2:
            log.append(events("other"))
            return
        try:
            outcomes.append(log.append(events("a", "a"), key="k", digest=b"odd" if n % 2 else b"even"))
        except IdempotencyConflict:
            outcomes.append(None)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(publish, range(12)))
    stored = [outcome for outcome in outcomes if outcome is not None]
    assert len(stored) == 4 and all(positions == stored[0] for positions in stored)
    assert [record.position for record in log.read(["a"], 0, LIMIT, BYTES)] == stored[0]
    assert len(log.read(["other"], 0, LIMIT, BYTES)) == 4


def test_key_is_remembered_when_its_events_are_trimmed(place: Place) -> None:
    log = place.open(retain_events=1)
    first = log.append(events("a", "a", "a"), key="k", digest=b"1")
    log.append(events("b"))
    trim_all(log)
    assert data(log.read(None, 0, LIMIT, BYTES)) == ["data 0"]
    assert log.append(events("a", "a", "a"), key="k", digest=b"1") == first


def test_key_is_remembered_by_other_workers_and_after_a_restart(shared_place: Place) -> None:
    log = shared_place.open()
    assert log.shared
    first = log.append(events("a"), key="k", digest=b"1")
    assert shared_place.open().append(events("a"), key="k", digest=b"1") == first
    log.close()
    with pytest.raises(IdempotencyConflict):
        shared_place.open().append(events("a"), key="k", digest=b"2")


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("channels", "after", "limit", "max_bytes", "expected"),
    [
        pytest.param(None, -1, 100, BYTES, "0123456789", id="everything"),
        pytest.param(None, 3, 100, BYTES, "456789", id="after is exclusive"),
        pytest.param(None, 9, 100, BYTES, "", id="after the newest"),
        pytest.param(None, 3, 2, BYTES, "45", id="limit"),
        pytest.param(None, 0, 0, BYTES, "", id="limit of none"),
        pytest.param(["a"], -1, 100, BYTES, "0369", id="one channel"),
        pytest.param(["a"], 0, 2, BYTES, "36", id="one channel with a limit"),
        pytest.param(["c", "a"], -1, 100, BYTES, "0235689", id="two channels in the order of the log"),
        pytest.param(["c", "a"], 2, 3, BYTES, "356", id="two channels with a limit"),
        pytest.param(["a", "a"], -1, 100, BYTES, "0369", id="a channel named twice counts once"),
        pytest.param({"a", "b", "c"}, 4, 100, BYTES, "56789", id="a set"),
        pytest.param([], -1, 100, BYTES, "", id="no channel"),
        pytest.param(["A", "%", "a%", "nobody"], -1, 100, BYTES, "", id="names match exactly"),
        pytest.param(["b", *(f"x{n}" for n in range(700))], -1, 100, BYTES, "147", id="more channels than SQL allows"),
        pytest.param(None, -1, 100, 3, "012", id="ends with the record that reaches max_bytes"),
        pytest.param(["a"], 0, 100, 1, "3", id="at least one record"),
        pytest.param(["a"], 0, 100, 0, "3", id="at least one record, even for no bytes"),
    ],
)
def test_read(log: Log, channels: list[str] | None, after: int, limit: int, max_bytes: int, expected: str) -> None:
    positions = fill(log, "abcabcabca")
    found = log.read(channels, 0 if after < 0 else positions[after], limit, max_bytes)
    assert "".join(data(found)) == expected
    assert [record.position for record in found] == [positions[int(n)] for n in expected]


def test_page_cut_by_bytes_can_be_told_from_the_last_one(log: Log) -> None:
    log.append([Event("a", "é" * 100)] * 20)
    page = log.read(["a"], 0, LIMIT, 550)
    assert sum(len(record.data) for record in page) == 600
    assert len(log.read(["a"], page[-1].position, LIMIT, 1401)) == 14


@pytest.mark.parametrize(
    ("channels", "limit", "max_bytes", "expected"),
    [
        pytest.param(None, 100, BYTES, "0123456789", id="everything"),
        pytest.param(None, 3, BYTES, "789", id="limit"),
        pytest.param(["b"], 2, BYTES, "47", id="one channel"),
        pytest.param(["b", "c"], 3, BYTES, "578", id="two channels"),
        pytest.param([], 3, BYTES, "", id="no channel"),
        pytest.param(None, 100, 4, "6789", id="ends with the record that reaches max_bytes"),
        pytest.param(None, 100, 0, "9", id="at least one record"),
    ],
)
def test_newest(log: Log, channels: list[str] | None, limit: int, max_bytes: int, expected: str) -> None:
    fill(log, "abcabcabca")
    assert "".join(data(log.newest(channels, limit, max_bytes))) == expected


@pytest.mark.parametrize(
    ("channels", "after", "keep", "expected"),
    [
        pytest.param(["a"], -1, 4, None, id="exactly as many as are kept"),
        pytest.param(["a"], -1, 3, 0, id="one more"),
        pytest.param(["a"], -1, 1, 6, id="three more"),
        pytest.param(["a"], 3, 2, None, id="those before the cursor do not count"),
        pytest.param(["a"], -1, 0, 9, id="none kept"),
        pytest.param(["a", "b"], -1, 4, 3, id="two channels"),
        pytest.param(["nobody"], -1, 1, None, id="a channel without events"),
        pytest.param([], -1, 0, None, id="no channel"),
        pytest.param(None, 1, 5, 4, id="every channel"),
    ],
)
def test_floor(log: Log, channels: list[str] | None, after: int, keep: int, expected: int | None) -> None:
    positions = fill(log, "abcabcabca")
    found = log.floor(channels, 0 if after < 0 else positions[after], keep)
    assert found == (None if expected is None else positions[expected])
    if found is not None:
        assert len(log.read(channels, found, LIMIT, BYTES)) == keep


# ── retention ───────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_newest_events_are_kept(place: Place) -> None:
    log = place.open(retain_events=10)
    positions = fill(log, "ab" * 600)
    assert trim_all(log) == 1190
    assert [record.position for record in log.read(None, 0, LIMIT, BYTES)] == positions[-10:]
    bounds = log.bounds()
    assert bounds[:4] == (positions[-10], positions[-1], positions[-11], 0)
    assert bounds.began < positions[0] and not bounds.complete
    assert len(log.read(["a"], 0, LIMIT, BYTES)) == 5
    positions = fill(log, "c" * 4)
    assert trim_all(log) == 4
    assert len(log.read(None, 0, LIMIT, BYTES)) == 10 and log.trim() == 0
    assert log.bounds().latest == positions[-1]


def test_another_retention_counts_from_the_next_trim_on(place: Place) -> None:
    log = place.open(retain_events=10)
    fill(log, "a" * 30)
    log.retain(20, 86_400)
    assert trim_all(log) == 10
    log.retain(5, 86_400)
    assert trim_all(log) == 15
    log.retain(5, 0.01)
    eventually(lambda: log.trim() == 5)


def test_old_events_go_and_positions_go_on(place: Place) -> None:
    log = place.open(retain_seconds=0.3)
    old = fill(log, "aaa")
    assert log.trim() == 0
    eventually(lambda: log.trim() == 3)
    assert log.bounds()[:3] == (None, old[-1], old[-1])
    assert log.newest(None, LIMIT, BYTES) == []
    (new,) = log.append(events("a"))
    assert new > old[-1] and log.bounds()[:3] == (new, new, old[-1])


def test_positions_increase_after_a_restart_of_a_log_that_was_trimmed_empty(
    shared_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shared_place.open(retain_seconds=0.05)
    old = fill(log, "aaa")
    eventually(lambda: log.trim() == 3)
    bounds = log.bounds()
    log.close()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    again = shared_place.open()
    assert again.bounds() == bounds
    assert again.append(events("a"))[0] > old[-1]


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────────


def test_closed_log_is_unavailable_and_its_followers_end(log: Log) -> None:
    follower = Follower(log)
    eventually(lambda: follower.reports)
    log.close()
    assert follower.ended() and not isinstance(follower.error, (AssertionError, TypeError))
    log.close()
    for use in (
        lambda: log.append(events("a")),
        lambda: log.read(None, 0, 1, 1),
        log.bounds,
        log.trim,
        lambda: next(iter(log.follow(0, threading.Event()))),
    ):
        with pytest.raises(LogUnavailable):
            use()
    log.wake()


def test_everything_is_there_after_a_restart(shared_place: Place) -> None:
    log = shared_place.open()
    fill(log, "abc")
    before, bounds = log.read(None, 0, LIMIT, BYTES), log.bounds()
    log.close()
    again = shared_place.open()
    assert again.read(None, 0, LIMIT, BYTES) == before
    assert again.bounds() == bounds


def test_what_the_log_takes_is_told_as_far_as_it_can_be(log: Log) -> None:
    before = log.usage()
    assert (before.oldest, before.oldest_at) == (None, None)
    first, *_ = log.append([Event("a", "x" * 50_000)] * 4)
    after = log.usage()
    assert after.oldest == first
    assert after.oldest_at is not None and abs(after.oldest_at - time.time()) < 60
    assert (before.bytes is None) == (after.bytes is None)
    if before.bytes is not None and after.bytes is not None:
        assert after.bytes >= 200_000 and after.bytes > before.bytes
    assert after.free is None or after.free > 0
    log.close()
    with pytest.raises(LogUnavailable):
        log.usage()
