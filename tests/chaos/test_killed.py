"""``kill -9``: of a worker, of a master, of Redis."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from functools import partial

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.reader import reckon
from tests.support.server import Server
from tests.support.wait import eventually


def replaced(server: Server, victim: int) -> bool:
    return len(pids := server.worker_pids()) == server.worker_count and victim not in pids


def test_a_killed_worker_costs_its_clients_a_reconnect_and_no_event(fleet: Fleet, stack: ExitStack) -> None:
    readers = fleet.readers(stack, 9)
    with fleet.recorder() as recorder:
        for server in fleet.servers:
            recorder.progress()
            victim = server.worker_pids()[0]
            os.kill(victim, signal.SIGKILL)
            eventually(partial(replaced, server, victim), 10)
        recorder.progress()
    reckon("kill -9 of a worker, twice", readers, recorder.finish())
    assert sum(reader.reconnects for reader in readers) > 0, "no client was on that worker"


def test_a_killed_master_takes_its_workers_along_and_the_other_instance_serves_their_clients(
    fleet: Fleet, stack: ExitStack
) -> None:
    readers = fleet.readers(stack, 9)
    server = fleet.servers[0]
    with fleet.recorder() as recorder:
        recorder.progress()
        workers = server.worker_pids()
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(5)
        recorder.progress()
        # Orphans have to notice on their own that their master is gone.
        eventually(lambda: not any(_lives(pid) for pid in workers), 10, "workers outlive their master")
        server.start()
        recorder.progress()
    reckon("kill -9 of a master", readers, recorder.finish())
    assert sum(reader.reconnects for reader in readers) > 0, "no client was on that instance"


def test_all_instances_killed_at_once_lose_nothing_and_no_browser_gives_up(fleet: Fleet, stack: ExitStack) -> None:
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        for server in fleet.servers:
            server.kill()
        down = time.monotonic()
        eventually(lambda: all(len(reader.endings) > 1 for reader in readers), 10, "nobody tried meanwhile")
        for server in fleet.servers:
            server.start()
        recorder.progress()
        outage = time.monotonic() - down
    reckon(f"kill -9 of all instances, away for {outage:.1f} s", readers, recorder.finish())


@pytest.mark.parametrize("seconds", [1.0, pytest.param(15.0, marks=pytest.mark.slow)])
def test_a_killed_redis_loses_nothing_that_was_acknowledged(fleet: Fleet, stack: ExitStack, seconds: float) -> None:
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        connections = sum(reader.connections for reader in readers)
        down = time.monotonic()
        fleet.redis.kill()
        eventually(lambda: len(recorder.since(down + 0.5)) >= 10 and time.monotonic() > down + seconds, seconds + 10)
        refused = [attempt for attempt in recorder.since(down + 0.5)]
        fleet.redis.start()
        up = time.monotonic()
        recorder.progress()
    outage = up - down
    assert {attempt.status for attempt in refused} == {503}
    assert all(attempt.retry_after for attempt in refused)
    slowest = sorted(attempt.took for attempt in refused)[int(len(refused) * 0.9)]
    assert slowest < 0.25, f"known to be down, and yet {slowest:.3f} s"
    for reader in readers:
        assert reader.heartbeats(down + 0.5, up) > 0 or outage < 1.0, "a stream without heartbeats"
    first = [reader.wait_for_first_after(up, 5) for reader in readers]
    assert max(first) - up < 2.0, f"events {max(first) - up:.2f} s after Redis's return"
    assert sum(reader.connections for reader in readers) == connections, "streams did not stay open"
    note = f"503 in {slowest * 1000:.0f} ms (p90), first event {(min(first) - up) * 1000:.0f} ms after its return"
    reckon(f"kill -9 of Redis, away for {outage:.1f} s", readers, recorder.finish(), note=note)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
