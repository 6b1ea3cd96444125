"""Redis refuses, or another one takes over."""

from __future__ import annotations

import contextlib
import shutil
import time

import pytest
import redis

from sse.events.model import Event
from sse.log import Log, LogUnavailable
from sse.log.redis.connector import Connector
from sse.log.redis.url import parse_url
from tests.sse.log.redis.play import EVENTS, KNOWN_DOWN, Open, Start, Tailer, append, failure
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

# ── Redis refuses ───────────────────────────────────────────────────────────────────────────────────────


def test_full_redis_stores_nothing_and_still_reads(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    tailer = Tailer(log, closing)
    append(log, "1")
    server.run("CONFIG", "SET", "maxmemory", "1kb")
    newcomer = open_redis(server)
    assert newcomer.bounds() == log.bounds()
    with pytest.raises(LogUnavailable, match="Redis is full"):
        log.append([Event("a", "2"), Event("new", "3")], key="k")
    assert [record.data for record in log.read(None, 0, 10, 1000)] == ["1"]
    assert server.run("KEYS", "*:ch:new") == server.run("KEYS", "*:key:*") == []
    server.run("CONFIG", "SET", "maxmemory", "0")
    append(log, "4", key="k")
    eventually(lambda: tailer.data() == ["1", "4"])
    assert not tailer.failures


def test_master_that_became_a_replica_takes_no_events_and_loses_none(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    server = start()
    log = open_redis(server)
    tailer = Tailer(log, closing)
    append(log, "1")
    server.run("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(LogUnavailable, match="is a replica"):
        append(log, "2")
    newcomer = open_redis(server)  # not refused: it can become a master again
    assert "is a replica" in failure(newcomer)
    server.run("REPLICAOF", "NO", "ONE")
    append(newcomer, "3")
    eventually(lambda: tailer.data() == ["1", "3"])
    assert not tailer.replaced


def test_demoted_master_is_left_for_the_new_one(start: Start, open_redis: Open) -> None:
    old, new = start(), start()
    log = open_redis(old)
    log._client._connector.target = parse_url(new.url)  # as a name that leads to another address now
    old.run("REPLICAOF", "127.0.0.1", new.port)
    with pytest.raises(LogUnavailable, match="is a replica"):
        append(log, "1")
    append(log, "2")
    assert new.run("XLEN", EVENTS) == 1


def test_redis_that_cannot_save_is_named(start: Start, open_redis: Open) -> None:
    server = start(appendonly="no", save="3600 100000")
    log = open_redis(server)
    append(log, "1")
    shutil.rmtree(server.directory)
    server.run("BGSAVE")
    eventually(lambda: server.run("INFO", "persistence")["rdb_last_bgsave_status"] == "err")
    with pytest.raises(LogUnavailable, match="cannot save to its disk"):
        append(log, "2")


# ── replicas and Sentinel ───────────────────────────────────────────────────────────────────────────────


def test_event_without_its_replicas_is_not_acknowledged_and_a_repetition_waits_for_them(
    start: Start, open_redis: Open
) -> None:
    master = start(repl_diskless_sync_delay=0)
    log, other = (open_redis(f"{master.url}?replicas=1") for _ in range(2))
    replica = replicate(start, master)
    eventually(lambda: not unconfirmed(log, "1"))
    replica.pause()
    for worker in log, other, log, log:
        started = time.monotonic()
        with pytest.raises(LogUnavailable, match="only 0 of 1 replicas"):
            append(worker, "x", key="x")
    assert time.monotonic() - started < KNOWN_DOWN, "known to be missing, and yet waited for"
    replica.resume()
    eventually(lambda: not unconfirmed(other, "x"))
    assert len(replica.run("XRANGE", EVENTS, "-", "+")) == 2


def replicate(start: Start, master: RedisServer) -> RedisServer:
    replica = start(replicaof=f"127.0.0.1 {master.port}")
    # Not before the master has heard of it does WAIT count it.
    eventually(lambda: master.run("INFO", "replication").get("slave0", {}).get("state") == "online", 10)
    return replica


def test_sentinel_leads_to_the_new_master_and_nothing_is_lost(
    start: Start, open_redis: Open, closing: contextlib.ExitStack
) -> None:
    old = start(repl_diskless_sync_delay=0)
    new = replicate(start, old)
    nobody = start()
    sentinel = start(
        sentinel=True,
        monitor=f"sentinel monitor main 127.0.0.1 {old.port} 1",
        down="sentinel down-after-milliseconds main 300",
        timeout="sentinel failover-timeout main 2000",
    )
    nobody.kill()
    log = open_redis(f"redis+sentinel://127.0.0.1:{nobody.port},127.0.0.1:{sentinel.port}/main")
    tailer = Tailer(log, closing)
    append(log, "1")
    eventually(lambda: sentinel.run("SENTINEL", "REPLICAS", "main"))
    old.kill()
    eventually(lambda: is_master(new), 15)
    # Its only replica is gone with the old master; so it is stored, but not confirmed.
    eventually(lambda: "2" in tailer.data() or not unconfirmed(log, "2"), 5)
    eventually(lambda: tailer.data()[:1] + tailer.data()[-1:] == ["1", "2"])
    assert not tailer.replaced


def is_master(server: RedisServer) -> bool:
    with contextlib.suppress(redis.ConnectionError):  # Sentinel ends all connections when it promotes
        return bool(server.run("ROLE")[0] == b"master")
    return False


def unconfirmed(log: Log, data: str) -> bool:
    with contextlib.suppress(LogUnavailable):
        append(log, data, key=data)
        return False
    return True


def test_old_master_that_a_sentinel_still_names_is_not_used(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = start(replicaof="127.0.0.1 1")
    connector = Connector(parse_url("redis+sentinel://127.0.0.1/main"))
    monkeypatch.setattr(connector, "_master", lambda patience: ("127.0.0.1", replica.port))
    with pytest.raises(redis.ConnectionError, match="is a slave now, not the master"):
        connector.connect()


def test_unknown_service_is_named(start: Start, open_redis: Open) -> None:
    sentinel = start(sentinel=True)
    log = open_redis(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
    with pytest.raises(LogUnavailable, match="no Sentinel names a master of other.*does not know it"):
        log.bounds()
