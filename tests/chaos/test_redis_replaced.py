"""Redis returns empty, or a replica takes over: clients are told what is gone with the old log."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack

from tests.chaos.fleet import KEY, Fleet
from tests.chaos.outage import Outage
from tests.chaos.reader import Reader, reckon_confirmed, reckon_replaced
from tests.chaos.silent_proxy import SilentProxy
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually


def kept(redis: RedisServer) -> list[str]:
    """Return the ids of all events in this Redis."""
    return [name.decode() for name, _ in redis.run("XRANGE", "{headwater}:events", "-", "+")]


def take_over(fleet: Fleet, replica: RedisServer) -> None:
    """Make this the fleet's Redis."""
    replica.run("REPLICAOF", "NO", "ONE")
    for network in fleet.networks:
        network.target = replica.port
        network.sever()


def test_an_empty_redis_is_told_to_every_client_that_missed_something(stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(2))
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        fleet.redis.kill()
        shutil.rmtree(fleet.redis.directory / "appendonlydir")
        down = time.monotonic()
        eventually(lambda: len(recorder.since(down)) > 5, 5)
        fleet.redis.start()
        up = time.monotonic()
        recorder.progress()
    note = Outage(down, down, up).check_return(readers)
    acknowledged = recorder.finish()
    book = reckon_replaced("Redis restarted empty", readers, acknowledged, kept(fleet.redis), note=note)
    assert book.lost >= 12, "nothing was gone: that was no empty Redis"
    # So is one that was away all the time.
    late = Reader(fleet.port, ("a", "b"))
    late.last_event_id = acknowledged[0].id
    stack.enter_context(late)
    late.wait_for(lambda reader: reader.resets and len(reader.ledger) >= len(kept(fleet.redis)))
    assert late.ids == kept(fleet.redis)


def replica_of(port: int) -> RedisServer:
    return RedisServer(replicaof=f"127.0.0.1 {port}", appendfsync="always")


def in_step(redis: RedisServer) -> None:
    eventually(lambda: redis.run("INFO", "replication")["master_link_status"] == "up", 10)


def test_failover_by_hand_loses_nothing_that_a_replica_had_to_confirm(stack: ExitStack) -> None:
    # ?replicas=1: an event is acknowledged when a replica has it, too.
    fleet = stack.enter_context(Fleet(2, replicas=1, redis={"repl_diskless_sync_delay": 0}))
    replica = stack.enter_context(replica_of(fleet.redis.port))
    in_step(replica)
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        down = time.monotonic()
        fleet.redis.kill()
        eventually(lambda: len(recorder.since(down)) > 5, 5)
        replica.run("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        take_over(fleet, replica)
        second = stack.enter_context(replica_of(replica.port))
        in_step(second)
        up = time.monotonic()
        recorder.progress()
    note = Outage(down, down, up).check_return(readers)
    # Clients may have seen the event that was under way when the master died.
    assert reckon_confirmed("failover by hand, ?replicas=1", readers, recorder.finish(), note=note) <= 1


def test_an_event_that_was_seen_before_a_replica_had_it_is_told_when_it_is_gone(stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(1, replicas=1, redis={"repl_diskless_sync_delay": 0}))
    replication = stack.enter_context(SilentProxy(fleet.redis.port))
    replica = stack.enter_context(replica_of(replication.port))
    in_step(replica)
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        replication.silence()
        eventually(lambda: recorder.attempts[-1].status == 503, 5)  # from here on nothing gets through
        answer = fleet.servers[0].request("POST", "/events/a", b"unconfirmed", {"Authorization": f"Bearer {KEY}"})
        assert (answer.status, answer.json()["stored"]) == (503, "unknown")
        eventually(lambda: any(reader.ledger[-1].data == "unconfirmed" for reader in readers), 5)
        fleet.redis.kill()
        replication.close()
        replica.run("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        take_over(fleet, replica)
        in_step(stack.enter_context(replica_of(replica.port)))
        recorder.progress()
    assert reckon_confirmed("failover, an event unconfirmed", readers, recorder.finish()) >= 1


def test_failover_to_a_replica_that_lags_is_told_to_those_who_had_seen_more(stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(2, redis={"repl_diskless_sync_delay": 0}))
    replication = stack.enter_context(SilentProxy(fleet.redis.port))
    replica = stack.enter_context(replica_of(replication.port))
    in_step(replica)
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        replication.silence()
        recorder.progress(40)
        down = time.monotonic()
        fleet.redis.kill()
        replication.close()
        take_over(fleet, replica)
        up = time.monotonic()
        recorder.progress()
    note = Outage(down, down, up).check_return(readers)
    book = reckon_replaced("failover to a lagging replica", readers, recorder.finish(), kept(replica), note=note)
    assert book.lost >= 30, "the replica did not lag"


def test_a_client_that_was_away_during_a_lagging_failover_gets_what_it_missed_or_is_told(stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(2, redis={"repl_diskless_sync_delay": 0}))
    knowing, ignorant = fleet.servers
    replication = stack.enter_context(SilentProxy(fleet.redis.port))
    replica = stack.enter_context(replica_of(replication.port))
    in_step(replica)
    with fleet.recorder(knowing.port) as recorder:
        recorder.progress()
        seen = recorder.acknowledged[-1].id
        eventually(lambda: kept(replica)[-1:] >= [seen], 5)
        fleet.networks[1].silence()
        replication.silence()
        recorder.progress(40)
        down = time.monotonic()
        fleet.redis.kill()
        replication.close()
        take_over(fleet, replica)
        fleet.networks[1].speak()
        up = time.monotonic()
        recorder.progress()
        # To the instance that never had the lost events, and to the one that had.
        away = [Reader(server.port, ("a", "b")) for server in (ignorant, knowing)]
        for reader in away:
            reader.last_event_id = seen
            stack.enter_context(reader)
        recorder.progress()
    assert up - down < 5
    fault = "failover to a lagging replica, clients away"
    book = reckon_replaced(fault, away, recorder.finish(), kept(replica))
    assert book.lost >= 30, "the replica did not lag"
    assert all(len(reader.resets) == 1 for reader in away), "told once"
