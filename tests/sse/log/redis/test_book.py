"""What the log knows of its channels: counted apart from publishing, also of what older programs and hands do."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest

from sse.events.model import format_id, make_position
from sse.log import ChannelInfo, LogUnavailable, RetainRule
from sse.log.redis import channels, upkeep
from sse.log.redis.engine import RedisLog
from tests.sse.log.conftest import data, fill, trim_all
from tests.sse.log.redis.play import EVENTS, META, Open, events, positions
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

ROOT = "{headwater}:"
BOOK, NAMES, SIZES, GONE, IDLE, DUE = (ROOT + name for name in ("book", "names", "sizes", "gone", "idle", "due"))


def names(log: RedisLog) -> dict[str, int]:
    return {info.channel: info.events for info in log.channels()}


def calls(server: RedisServer) -> dict[str, int]:
    stats = server.run("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}


class OlderProgram:
    """What a worker of a version without the book does to Redis, as far as it matters here."""

    def __init__(self, server: RedisServer) -> None:
        self._run = server.run
        self._last = time.time_ns() // 10**6

    def create(self) -> None:
        created = f"{self._last}-0"
        fields = {"format": "1", "created": created, "last": created, "oldest": "", "trimmed": created}
        self._run("HSET", META, *(part for pair in fields.items() for part in pair))

    def append(self, channel: str, text: str) -> int:
        self._last += 1
        id = f"{self._last}-0"
        position = make_position(self._last)
        self._run("ZADD", f"{ROOT}ch:{channel}", 0, position.to_bytes(8, "big"))
        self._run("XADD", EVENTS, id, "c", channel, "d", text)
        self._run("HSET", META, "last", id)
        if not self._run("HGET", META, "oldest"):
            self._run("HSET", META, "oldest", id)
        return position

    def trim(self, through: int) -> None:
        for key in self._run("KEYS", f"{ROOT}ch:*"):
            self._run("ZREMRANGEBYLEX", key, "-", b"[" + through.to_bytes(8, "big"))
        self._run("XTRIM", EVENTS, "MINID", "=", format_id(through + 1))
        left = self._run("XRANGE", EVENTS, "-", "+", "COUNT", 1)
        self._run("HSET", META, "trimmed", format_id(through), "oldest", left[0][0] if left else "")


# ── publishing ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_publish_runs_the_commands_that_it_always_did(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log.append(events("a"), close=["b"])
    log.channels()
    server.run("CONFIG", "RESETSTAT")
    log.append(events("a"))
    publish = {name: count for name, count in calls(server).items() if not name.startswith("config")}
    looked = publish.pop("hmget")
    assert publish == {"evalsha": 1, "time": 1, "zadd": 1, "xadd": 1, "hset": 1}
    assert looked == 2, "the second look is for closed channels, and only while there are any"
    log.erase("b")
    server.run("CONFIG", "RESETSTAT")
    log.append(events("a"))
    assert calls(server)["hmget"] == 1


def test_a_foreign_key_in_the_place_of_the_closed_channels_stores_nothing(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis(server)
    server.run("SET", f"{ROOT}closed", "mine")
    with pytest.raises(LogUnavailable, match="another program's key") as refusal:
        log.append(events("a"), close=["a"])
    assert refusal.value.stored == "no" and positions(log) == []


# ── counting ────────────────────────────────────────────────────────────────────────────────────────────


def test_counting_goes_on_where_it_was_and_in_bites(
    server: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_redis(server)
    fill(log, "ab" * 2000)
    server.run("CONFIG", "RESETSTAT")
    assert names(log) == {"a": 2000, "b": 2000}
    assert calls(server)["evalsha"] >= 4000 / channels.COUNT_RECORDS
    fill(log, "a")
    server.run("CONFIG", "RESETSTAT")
    assert names(log) == {"a": 2001, "b": 2000}
    # Counting once, and the first and the last of both channels; a fixed number however many events there are.
    assert calls(server)["xrange"] == 1 and calls(server)["zrange"] == 4


def test_a_reader_of_patterns_that_cannot_wait_for_the_count_reads_the_stream(
    server: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_redis(server)
    found = fill(log, "ab" * 700 + "c")
    monkeypatch.setattr(channels, "COUNT_RECORDS", 10)
    monkeypatch.setattr(channels, "SELECT_SECONDS", -1.0)
    assert data(log.read(["c*"], 0, 10, 1000)) == ["1400"]
    assert [r.position for r in log.newest(["b*", "c"], 3, 1000)] == [found[1397], found[1399], found[1400]]
    assert log.floor(["a*"], 0, 699) == found[0] and log.floor(["a*"], 0, 700) is None
    assert int(server.run("ZCARD", NAMES)) == 2, "c was found, and yet is not counted"


@pytest.mark.parametrize("merged", [1000, 100], ids=["by their indexes", "in the stream"])
def test_many_channels_of_a_pattern_are_read_in_order(
    server: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch, merged: int
) -> None:
    log = open_redis(server)
    monkeypatch.setattr(channels, "MERGED_MOST", merged)
    fill(log, (f"chat:{n % 700 if n % 2 else 1}" if n % 5 else "other" for n in range(6000)))
    expected = [str(n) for n in range(6000) if n % 5]
    found: list[str] = []
    after = 0
    server.run("CONFIG", "RESETSTAT")
    while page := log.read(["chat:*"], after, 999, 10**9):
        found += data(page)
        after = page[-1].position
    assert found == expected
    assert ("zrangebylex" in calls(server) and calls(server)["zrangebylex"] > 3000) == (merged == 1000)
    assert data(log.newest(["chat:*"], 5000, 10**9)) == expected
    assert data(log.newest(["chat:*"], 7, 10**9)) == expected[-7:]


# ── older programs, older data, other hands ─────────────────────────────────────────────────────────────


def test_log_from_before_opens_and_its_clients_resume(server: RedisServer, open_redis: Open) -> None:
    old = OlderProgram(server)
    old.create()
    first, *kept = [old.append(channel, "é" * n) for n, channel in enumerate("abcab")]
    old.trim(first)
    log = open_redis(server)
    bounds = log.bounds()
    assert bounds.oldest == kept[0] and bounds.trimmed == first and 0 < bounds.began < first and not bounds.complete
    # It was not recorded of which channel that was: so it may have been of any.
    assert log.gone(["a"], 0) == log.gone(["c"], 0) == log.gone(["z*"], 0) == first
    assert log.gone(["c"], first) == 0
    assert log.channels() == [
        ChannelInfo("a", 1, 6, kept[2], kept[2], False),
        ChannelInfo("b", 2, 10, kept[0], kept[3], False),
        ChannelInfo("c", 1, 4, kept[1], kept[1], False),
    ]
    assert positions(log, "b*", "c") == [kept[0], kept[1], kept[3]]
    log.retain(1, 1000)
    assert log.trim() == 3
    assert (log.gone(["a"], 0), log.gone(["b"], 0), log.gone(["c"], 0)) == (kept[2], kept[0], kept[1])


def test_log_from_before_of_which_nothing_was_trimmed_is_complete(server: RedisServer, open_redis: Open) -> None:
    old = OlderProgram(server)
    old.create()
    old.append("a", "x")
    log = open_redis(server)
    log.trim()
    assert log.bounds().complete and log.gone(["a"], 0) == log.gone(["*"], 0) == log.gone(None, 0) == 0


def test_what_an_older_program_trims_may_be_of_any_channel_and_is_counted_again(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis(server, retain_events=5)
    found = fill(log, "aabbccd")
    assert log.trim() == 2 and log.gone(["a"], 0) == found[1] and log.gone(["b"], 0) == 0
    old = OlderProgram(server)
    old.trim(found[2])
    assert [log.gone([name], 0) for name in ("a", "b", "d", "d*")] == [found[2]] * 4
    more = old.append("e", "xx")
    log.trim()
    assert [log.gone([name], 0) for name in ("a", "b", "d", "d*")] == [found[2]] * 4
    assert names(log) == {"b": 1, "c": 2, "d": 1, "e": 1}
    assert [info.bytes for info in log.channels("b")] == [1]
    fill(log, "f")
    assert log.trim() == 1 and log.gone(["b"], 0) == found[3] and log.gone(["d"], 0) == found[2]
    assert positions(log, "e", "*")[-2] == more


@pytest.mark.parametrize(
    ("command", "highest"),
    [
        pytest.param(("XTRIM", EVENTS, "MAXLEN", 4), 3, id="from the front"),
        pytest.param(("XDEL", EVENTS, 6), 6, id="the newest that it knows, from the middle"),
        pytest.param(("XDEL", EVENTS, 3), 3, id="an older one from the middle"),
    ],
)
def test_what_a_hand_removes_may_be_of_any_channel(
    server: RedisServer, open_redis: Open, command: tuple[Any, ...], highest: int
) -> None:
    log = open_redis(server, retain_events=8)
    found = fill(log, "aabbccddee")
    assert log.trim() == 2 and log.gone(["e"], 0) == 0
    server.run(*(format_id(found[part]) if isinstance(part, int) and part != 4 else part for part in command))
    left = [p for p in positions(log) if p]
    log.trim()
    told = log.gone(["e"], 0)
    # Redis 6.2 does not say which entry it was: then it may have been any that was counted.
    assert told in (found[5] if command[0] == "XTRIM" else found[highest], found[-1])
    assert told == log.bounds().trimmed == log.gone(["e*"], 0) == log.gone(None, 0)
    assert positions(log) == left and sum(names(log).values()) == len(left)
    fill(log, "f" * 5)
    trim_all(log)
    assert len(positions(log)) == 8, "the count is right again"


def test_what_a_hand_removes_below_what_was_trimmed_is_noticed(server: RedisServer, open_redis: Open) -> None:
    """Redis says which entry was deleted last only if it was the newest such."""
    log = open_redis(server)
    log.retain(100, 1000, [RetainRule("b", None, 0.001)])
    found = fill(log, "aaabc")
    eventually(lambda: trim_all(log) == 1)
    assert log.gone(["b"], 0) == found[3] and log.gone(["a"], 0) == 0
    server.run("XDEL", EVENTS, format_id(found[1]))
    log.trim()
    assert log.gone(["a"], 0) == log.gone(["c"], 0) == log.bounds().trimmed == found[4]
    assert names(log) == {"a": 2, "c": 1}


def test_worker_that_does_not_keep_the_log_leaves_its_book_alone(server: RedisServer, open_redis: Open) -> None:
    log, other = open_redis(server), open_redis(server)
    found = fill(log, "aab")
    log.trim()
    OlderProgram(server).trim(found[0])
    other.retain(1, 1000, [RetainRule("a", 0, None)])
    assert other.trim() == 0
    assert not server.run("HGET", BOOK, "rules") and names(other) == {"a": 2, "b": 1}
    log.trim()
    assert names(other) == {"a": 1, "b": 1}


# ── trimming by rules ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("no_grace")
def test_what_is_due_is_found_without_reading_what_is_not(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log.retain(10_000, 1000, [RetainRule("cursor:*", 2, None), RetainRule("audit", None, 10_000)])
    fill(log, ["audit"] * 3000 + [f"cursor:{n % 5}" for n in range(20)] + ["other"] * 100)
    time.sleep(0.002)
    server.run("CONFIG", "RESETSTAT")
    assert trim_all(log) == 10
    counted = calls(server)["xrange"]
    fill(log, ["cursor:1"] * 3)
    time.sleep(0.002)
    server.run("CONFIG", "RESETSTAT")
    assert trim_all(log) == 3
    assert calls(server)["xrange"] < 20 < counted, "of 3,000 others not one was looked at again"
    assert names(log) == {"audit": 3000, "other": 100, **{f"cursor:{n}": 2 for n in range(5)}}
    assert log.gone(["audit", "other", "o*"], 0) == 0 and log.gone(["cursor:*"], 0) == log.bounds().trimmed


@pytest.mark.usefixtures("no_grace")
def test_others_are_trimmed_behind_what_rules_keep(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log.retain(50, 1000, [RetainRule("audit", None, None)])
    fill(log, ["audit"] * 2500 + ["other"] * 60)
    assert trim_all(log) == 10
    server.run("CONFIG", "RESETSTAT")
    fill(log, ["audit", "other"])
    assert trim_all(log) == 1
    assert calls(server)["xrange"] < 20, "what it has passed over is not read again"
    log.retain(50, 1000)
    assert trim_all(log) == 2501, "without rules the count is over all together again"
    assert names(log) == {"audit": 1, "other": 49}


@pytest.mark.usefixtures("no_grace")
def test_rules_that_change_apply_to_what_is_there(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    fill(log, [f"c:{n % 450}" for n in range(1350)] + ["x"] * 5)
    log.trim()
    time.sleep(0.002)
    log.retain(10, 1000, [RetainRule("c:*", 1, None)])
    assert trim_all(log) == 900
    log.retain(10, 1000, [RetainRule("c:1*", None, None), RetainRule("x", 2, None)])
    assert trim_all(log) == 3 + 450 - 111 - 10
    assert server.run("ZCARD", DUE) == 0
    fill(log, "x")
    log.trim()
    assert server.run("ZRANGE", DUE, 0, -1) == [] and names(log)["x"] == 2


@pytest.mark.usefixtures("no_grace")
def test_stream_of_holes_is_packed_again(server: RedisServer, open_redis: Open) -> None:
    """A node is freed with its last entry: one that is kept for a month would keep a hundred that are gone."""
    log = open_redis(server)
    log.retain(10, 1000, [RetainRule("audit", None, None), RetainRule("cursor", 0, None)])
    for _ in range(60):
        fill(log, (["audit"] + ["cursor"] * 99) * 10)
    before, last = positions(log, "audit"), log.bounds().latest

    def nodes() -> int:
        info = server.run("XINFO", "STREAM", EVENTS)
        return int(info[info.index(b"radix-tree-keys") + 1])

    assert nodes() >= 600
    time.sleep(0.002)
    eventually(lambda: trim_all(log) == 0 and nodes() < 220)
    assert positions(log) == before == positions(log, "audit")
    log._eraser.resume(begin=True)
    info = server.run("XINFO", "STREAM", EVENTS)
    assert info[info.index(b"last-generated-id") + 1].decode() == format_id(last) != format_id(before[-1])
    server.run("CONFIG", "RESETSTAT")
    log.trim()
    assert "rename" not in calls(server), "once"


# ── what was trimmed of channels that have nothing left ─────────────────────────────────────────────────


def test_what_was_trimmed_of_too_many_channels_is_forgotten_oldest_first(
    server: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_redis(server, retain_events=1)
    found = []
    for n in range(20):
        found += fill(log, [f"once:{n}"])
        time.sleep(0.001)
    fill(log, ["last"])
    trim_all(log)
    assert log.gone(["last"], 0) == 0 and log.gone(["once:*"], 0) == found[19]
    monkeypatch.setattr(upkeep, "GONE_MOST", 15)
    fill(log, ["last"])
    trim_all(log)
    assert int(server.run("ZCARD", IDLE)) == int(server.run("HLEN", GONE)) - 1 == 15
    coarse = log.gone(["nobody"], 0)
    assert coarse == found[4], "of any channel something may be gone through the newest that was forgotten"
    assert log.gone(["once:10"], 0) == found[10]


def test_what_was_trimmed_a_month_ago_is_forgotten_except_of_channels_that_are_alive(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis(server, retain_events=2)
    found = fill(log, "abcbc")
    trim_all(log)
    assert sorted(server.run("ZRANGE", IDLE, 0, -1)) == [b"a"]
    server.run("ZADD", IDLE, 1000, "a", 2000, "b")
    log.trim()
    assert server.run("HKEYS", GONE) == [b"b", b"c"] or sorted(server.run("HKEYS", GONE)) == [b"b", b"c"]
    assert log.gone(["nobody"], 0) == found[0] and log.gone(["b"], 0) == found[1]


def test_answer_for_a_pattern_is_remembered_until_something_is_trimmed(
    server: RedisServer, open_redis: Open
) -> None:
    """Many clients may come back at once, and their pattern may match a hundred thousand channels."""
    log = open_redis(server, retain_events=3)
    found = fill(log, [f"c:{n}" for n in range(1500)])
    trim_all(log)
    assert log.gone(["c:*"], 0) == found[-4]
    server.run("CONFIG", "RESETSTAT")
    assert log.gone(["c:*"], 0) == log.gone(["c:*", "x"], found[3]) == found[-4]
    assert "zscan" not in calls(server)
    fill(log, ["d"])
    trim_all(log)
    assert log.gone(["c:*"], 0) == found[-3] and log.gone(["d*"], 0) == 0


def test_notes_leave_no_key_behind(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log.put_note("listeners", "w1", "x", 60)
    log.put_note("listeners", "w2", "x", 5)
    key = f"{ROOT}note:listeners"
    assert 55_000 < server.run("PTTL", key) <= 60_000
    log.put_note("listeners", "w1", "x", 0.02)
    log.put_note("listeners", "w2", "x", 0.02)
    server.run("PEXPIRE", key, 30)
    eventually(lambda: not server.run("EXISTS", key))


def test_scripts_are_known_by_what_they_say() -> None:
    from sse.log.redis import scripts

    shas = {name: getattr(scripts, name).sha for name in scripts.__all__ if name.isupper() and name != "FORMAT"}
    assert len(set(shas.values())) == len(shas) == 22
    assert shas["APPEND"] == hashlib.sha1(scripts.APPEND.source.encode(), usedforsecurity=False).hexdigest()
