"""Redis frozen, or behind a network that drops everything: publishers are told, streams stay, nothing is lost."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.outage import Outage
from tests.chaos.reader import reckon
from tests.support.wait import eventually

# The first missing answer reveals a frozen Redis: after 2 s for a command or a follower.
NOTICED = 2.6


@pytest.mark.parametrize("seconds", [4.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_frozen_redis_is_told_to_publishers_and_costs_no_event(
    fleet: Fleet, stack: ExitStack, seconds: float
) -> None:
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        connections = sum(reader.connections for reader in readers)
        down = time.monotonic()
        fleet.redis.pause()
        try:
            time.sleep(seconds)
        finally:
            up = time.monotonic()
            fleet.redis.resume()
        recorder.progress()
    note = Outage(down, down + NOTICED, up).check(readers, recorder)
    assert sum(reader.connections for reader in readers) == connections, "streams did not stay open"
    reckon(f"Redis stopped (SIGSTOP) for {seconds:g} s", readers, recorder.finish(), note=note)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [4.0, 30.0])
def test_a_silent_network_to_redis_is_noticed_and_costs_no_event(
    fleet: Fleet, stack: ExitStack, seconds: float
) -> None:
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        recorder.progress()
        connections = sum(reader.connections for reader in readers)
        down = time.monotonic()
        for network in fleet.networks:
            network.silence()
        try:
            time.sleep(seconds)
        finally:
            up = time.monotonic()
            for network in fleet.networks:
                network.speak()
        recorder.progress()
    note = Outage(down, down + NOTICED, up).check(readers, recorder)
    assert sum(reader.connections for reader in readers) == connections, "streams did not stay open"
    reckon(f"silent network between workers and Redis, {seconds:g} s", readers, recorder.finish(), note=note)


def test_an_instance_cut_off_from_redis_catches_up_with_what_the_others_took(fleet: Fleet, stack: ExitStack) -> None:
    cut_off, well = fleet.servers
    readers = fleet.readers(stack, 3, [cut_off.port])
    others = fleet.readers(stack, 3, [well.port])
    with fleet.recorder(well.port) as recorder:
        recorder.progress()
        down = time.monotonic()
        fleet.networks[0].silence()
        try:
            eventually(lambda: all(reader.heartbeats(down + NOTICED, down + 60) for reader in readers), 8)
            recorder.progress(50)
            behind = max(reader.ledger[-1].at for reader in readers)
            assert behind < down + 1, "it got events through a silent network"
            assert well.request("GET", "/readyz", port=cut_off.health_port).status == 200, "all pods share one Redis"
        finally:
            up = time.monotonic()
            fleet.networks[0].speak()
        recorder.progress()
    note = Outage(down, down + NOTICED, up).check_return(readers)
    reckon("one of two instances cut off from Redis", [*readers, *others], recorder.finish(), note=note)
