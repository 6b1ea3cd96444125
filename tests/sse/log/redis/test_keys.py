"""The Redis log's ids, index and retention, and what neighbours in the same Redis can do to them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from sse.events.model import Event, format_id, make_position
from sse.log import LogUnavailable
from sse.log.base import FOLLOW_CHARS
from sse.log.redis.pool import Pool
from tests.sse.log.conftest import Follower
from tests.sse.log.redis.play import EVENTS, META, Open, events, indexed, positions
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

CLAIM = "{headwater}:trim"
HOUR = make_position(3_600_000)

# ── keys and ids ────────────────────────────────────────────────────────────────────────────────────────


def test_workers_that_come_first_together_agree_on_the_creation(server: RedisServer, open_redis: Open) -> None:
    assert len({open_redis(server).bounds() for _ in range(5)}) == 1


def test_full_millisecond_carries_into_the_next(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    future = (time.time_ns() // 10**6) + 10**7
    server.run("HSET", META, "last", f"{future}-{2**20 - 2}")
    found = log.append(events("abab"))
    assert found == list(range(make_position(future, 2**20 - 1), make_position(future + 1, 3)))
    assert positions(log) == found and positions(log, "a") == found[::2]
    assert log.floor(["a", "b"], 0, 2) == found[1]


def test_new_ids_lie_above_all_that_a_worker_has_seen_of_a_redis_that_was_emptied(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis(server)
    future = (time.time_ns() // 10**6) + 10**7  # as if that server's clock had been ahead of the next one's
    server.run("HSET", META, "last", f"{future}-0")
    (seen,) = log.append(events("a"))
    server.run("FLUSHALL")
    bounds = log.bounds()
    assert bounds.oldest is None and bounds.trimmed == bounds.latest > seen
    server.run("FLUSHALL")
    assert log.append(events("a"))[0] > bounds.latest


def test_new_ids_lie_above_what_a_worker_has_seen_of_events_that_redis_lost(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis(server)
    log.append(events("a"))
    log._client.seen += HOUR  # as if the master that failed had been ahead, and its last events went with it
    assert log.append(events("a"))[0] == log._client.seen > make_position(time.time_ns() // 10**6)


def test_batch_is_one_call_whatever_its_size(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log.append(events("a"))
    server.run("CONFIG", "RESETSTAT")
    found = log.append([Event(f"c{i % 3000}", str(i)) for i in range(10_000)])
    assert server.run("INFO", "commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert found == list(range(found[0], found[0] + 10_000)) == positions(log)[1:]


def test_replay_of_a_channel_touches_no_other_channels_events(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log.append(events("b" * 3000))
    mine = log.append(events("aaa"))
    log.append(events("b" * 3000))
    server.run("CONFIG", "RESETSTAT")
    assert positions(log, "a") == mine
    calls = {name: stat["calls"] for name, stat in server.run("INFO", "commandstats").items()}
    assert calls["cmdstat_xrange"] == 3 and "cmdstat_xrevrange" not in calls


def test_index_is_trimmed_with_the_stream_and_leaves_no_empty_keys(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server, retain_events=100)
    log.append([Event(f"once{i}", "x") for i in range(1000)])
    kept = log.append(events("ab" * 50))
    while log.trim():
        pass
    assert indexed(server, "a") == kept[::2] and indexed(server, "b") == kept[1::2]
    assert sorted(server.run("KEYS", "{headwater}:ch:*")) == [b"{headwater}:ch:a", b"{headwater}:ch:b"]
    assert server.run("XLEN", EVENTS) == 100


def test_bite_of_large_events_is_as_many_as_any_but_a_megabyte_at_once(server: RedisServer, open_redis: Open) -> None:
    """The caller of trim goes by the number of rows: a bite that is not full is the last for a second."""
    log = open_redis(server, retain_events=1)
    for _ in range(3):
        log.append(events("a" * 20, "x" * 65536))
    server.run("CONFIG", "RESETSTAT")
    assert log.trim() == 59
    # 16, 16, 16, 12 are counted; 16, 16, 16, 11 removed, and then there is nothing more.
    assert server.run("INFO", "commandstats")["cmdstat_evalsha"]["calls"] == 4 + 5


def test_bite_is_full_where_there_is_more(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server, retain_events=1)
    for _ in range(11):
        log.append(events("a" * 50, "x" * 30_000))
    assert [log.trim() for _ in range(2)] == [500, 49]


def test_one_worker_trims_at_a_time(server: RedisServer, open_redis: Open) -> None:
    first, second = open_redis(server, retain_events=1), open_redis(server, retain_events=1)
    first.append(events("a" * 2000))
    assert first.trim() == 500 and second.trim() == 0
    server.run("PEXPIRE", CLAIM, 500)
    assert first.trim() == 500 and server.run("PTTL", CLAIM) > 1000  # a claim lasts while its owner works
    server.run("DEL", CLAIM)  # as if the first had been silent for three seconds
    assert second.trim() == 500 and first.trim() == 0


def test_floor_of_many_channels_is_exact(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    found = [p for n in range(8) for p in log.append([Event(f"c{i * i % 23}", "x") for i in range(n, n + 700)])]
    channels = [f"c{i}" for i in (0, 1, 2, 3, 4, 6, 8)]
    mine = positions(log, *channels)
    assert 2000 < len(mine) < len(found)
    for keep in (0, 1, 499, 500, 501, 1999, len(mine) - 1):
        assert log.floor(channels, 0, keep) == mine[-keep - 1]
    assert log.floor(channels, mine[99], len(mine) - 101) == mine[100]
    assert log.floor(channels, 0, len(mine)) is None


def test_what_a_follower_is_given_at_once_is_bounded(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    for _ in range(20):
        log.append(events("a" * 40, "x" * 30_000) + events("a" * 200))
    sizes, count = [], 0
    for batch in log.follow(0, threading.Event()):
        count += len(batch)
        sizes.append(sum(len(record.data) for record in batch))
        if count == 20 * 240:
            break
    assert max(sizes) <= FOLLOW_CHARS and len(sizes) > 20


def test_connections_are_not_used_on_after_a_fork(
    server: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool: Pool = open_redis(server)._client._pool
    shelf = pool._shelf()
    assert shelf.links
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert pool._shelf() is not shelf and pool._shelf().links == []


# ── neighbours in the same Redis ────────────────────────────────────────────────────────────────────────


def test_logs_with_different_prefixes_do_not_see_each_other(server: RedisServer, open_redis: Open) -> None:
    one, other = open_redis(server, prefix="one"), open_redis(server, prefix="other", retain_events=1)
    (mine,) = one.append(events("a"), key="k", digest=b"1")
    theirs = other.append(events("aaa"), key="k", digest=b"2")
    assert other.trim() == 2
    assert positions(one) == positions(one, "a") == [mine]
    assert positions(other) == positions(other, "a") == theirs[-1:]


@pytest.mark.parametrize(
    ("command", "left"),
    [
        pytest.param(("XTRIM", EVENTS, "MAXLEN", 2), 2, id="trimmed"),
        pytest.param(("XTRIM", EVENTS, "MAXLEN", 0), 0, id="trimmed to nothing"),
        pytest.param(("DEL", EVENTS), 0, id="deleted"),
    ],
)
def test_what_somebody_else_trims_is_reported_and_the_index_is_tidied(
    server: RedisServer, open_redis: Open, command: tuple[Any, ...], left: int
) -> None:
    log = open_redis(server)
    found = log.append(events("ababa"))
    server.run(*command)
    for _ in range(2):  # what the first look finds is not forgotten by the second
        bounds = log.bounds()
        assert bounds.oldest == (found[-left] if left else None)
        assert found[-left - 1] <= bounds.trimmed < (found[-left] if left else found[-1] + 1)
        assert bounds.latest == found[-1]
    assert positions(log, "a", "b") == found[len(found) - left :]
    assert log.trim() == 0
    assert indexed(server, "a") + indexed(server, "b") == sorted(found[len(found) - left :], reverse=True)
    more = log.append(events("a"))
    assert log.bounds().trimmed == bounds.trimmed and positions(log, "a", "b") == found[5 - left :] + more


def test_hole_that_somebody_makes_in_the_middle_is_reported(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    found = log.append(events("aaaa"))
    server.run("XDEL", EVENTS, format_id(found[2]))
    if b"max-deleted-entry-id" in server.run("XINFO", "STREAM", EVENTS):  # Redis 6.2 cannot tell
        assert log.bounds().trimmed == found[2]
    assert positions(log, "a") == [found[0], found[1], found[3]]


def test_entries_of_a_foreign_writer_are_left_out_and_stop_nobody(
    server: RedisServer, open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_redis(server)
    follower = Follower(log)
    before = log.append(events("a"))
    future = (time.time_ns() // 10**6) + 10**7
    for number, fields in enumerate(
        (("x", "y"), ("c", "a"), ("c", "a", "d", b"\xff"), ("c", "a", "d", "x", "e", "t", "r", "soon"))
    ):
        server.run("XADD", EVENTS, f"{future}-{number}", *fields)
    server.run("XADD", EVENTS, f"{future}-{2**20 + 5}", "c", "a", "d", "x")
    after = log.append(events("a"))
    assert after[0] >= make_position(future + 1)
    eventually(lambda: [record.position for record in follower.records] == before + after)
    assert positions(log) == before + after and "not of this service" in caplog.text
    follower._stop.set()
    log.wake()
    assert follower.ended() and follower.error is None
    short = open_redis(server, retain_events=1)
    assert short.trim() == 6 and positions(short) == after


def test_log_that_lost_its_creation_marker_keeps_its_events_and_counts_on(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis(server)
    found = log.append(events("aba"))
    server.run("DEL", META)
    bounds = open_redis(server).bounds()
    assert bounds.oldest == found[0] > bounds.trimmed and bounds.latest > found[-1]
    more = log.append(events("a"))
    assert more[0] > bounds.latest and positions(log) == found + more


def test_foreign_key_in_the_place_of_an_index_stores_nothing(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    server.run("SET", "{headwater}:ch:b", "mine")
    with pytest.raises(LogUnavailable, match="another program's key"):
        log.append(events("ab"))
    assert positions(log) == positions(log, "a") == []
    assert len(log.append(events("aa"))) == 2


def test_scripts_that_redis_forgot_are_sent_again(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    server.run("SCRIPT", "FLUSH")
    log.append(events("a"))
    server.run("SCRIPT", "FLUSH")
    assert log.bounds().oldest is not None


def test_wrong_idea_of_redis_clock_corrects_itself(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log._appender.offset_ms = (log._appender.offset_ms or 0) - 3_600_000  # as if Redis's clock had been set forward
    assert len(log.append(events("a"))) == 1 and len(positions(log)) == 1
    log._appender.offset_ms = 0.0
    assert len(log.append(events("a"), key="k")) == 1
