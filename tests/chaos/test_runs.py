"""Runs (``sse.run``) while things fail: each has exactly one end, and each reader sees every token before it once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from tests.chaos.conftest import RUN_GRACE
from tests.chaos.fleet import Fleet
from tests.chaos.runs import LOST_WITHIN, Runs, Started, settle, watch
from tests.chaos.test_killed import replaced
from tests.support.wait import eventually


@pytest.fixture
def runs(fleet: Fleet) -> Runs:
    return Runs(fleet)


@pytest.fixture
def endless(runs: Runs) -> Iterator[list[Started]]:
    """Runs that a test appends here are stopped at its end."""
    started: list[Started] = []
    yield started
    for one in started:
        runs.stop(one.run)


def test_a_killed_worker_or_pod_loses_its_runs_within_ten_seconds_and_says_so_once(
    fleet: Fleet, stack: ExitStack, runs: Runs, endless: list[Started]
) -> None:
    """``kill -9`` of one of an instance's workers and, at the same time, of the whole other instance."""
    first, second = fleet.servers
    victim, survivor = first.worker_pids()
    dying = [runs.on(victim, first.port, count=10_000) for _ in range(3)]
    dying += [runs.start(second.port, count=10_000) for _ in range(3)]
    living = [runs.on(survivor, first.port, count=400) for _ in range(3)]
    endless += [*dying, *living]
    readers, others = watch(stack, dying, fleet.port), watch(stack, living, fleet.port)
    for reader in [*readers, *others]:
        reader.wait_for_tokens(10)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    second.kill()
    fleet.nginx.serve([first.port])
    took = [reader.wait_for(lambda _, one=reader: one.ends, 20) or reader.end_seen() - killed for reader in readers]
    eventually(partial(replaced, first, victim), 10)
    second.start()
    fleet.nginx.serve(fleet.ports)
    assert max(took) < LOST_WITHIN, took
    note = f"told within {max(took):.1f} s"
    settle("kill -9 of a worker and of a pod in the middle of runs", readers, {"lost"}, note=note)
    settle("runs beside them", others, {"done"})
    for one in dying:
        assert runs.told(one.run, second.port)["state"] == "lost"
        assert runs.noted(one.channel) == ["asked"], "a run does not move to another worker"


@pytest.mark.parametrize("seconds", [1.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_killed_redis_loses_no_run(fleet: Fleet, stack: ExitStack, runs: Runs, seconds: float) -> None:
    started = [runs.start(count=int(100 + seconds * 50)) for _ in range(4)]
    readers = watch(stack, started, fleet.port)
    for reader in readers:
        reader.wait_for_tokens(10)
    fleet.redis.kill()
    time.sleep(seconds)
    fleet.redis.start()
    settle(f"kill -9 of Redis in the middle of runs, away for {seconds:g} s", readers, {"done"})


@pytest.mark.parametrize("seconds", [7.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_log_that_is_away_for_longer_than_a_lease_loses_no_run(
    fleet: Fleet, stack: ExitStack, runs: Runs, seconds: float
) -> None:
    """Some runs go on when it is back; others have ended meanwhile, and their ends wait, too."""
    started = [runs.start(count=count) for count in (100, 100, 100, 600)]
    readers = watch(stack, started, fleet.port)
    for reader in readers:
        reader.wait_for_tokens(10)
    fleet.redis.pause()
    try:
        time.sleep(seconds)
    finally:
        fleet.redis.resume()
    settle(f"Redis stopped (SIGSTOP) for {seconds:g} s in the middle of runs", readers, {"done"})


def test_two_identical_requests_at_once_on_two_pods_start_one_run(fleet: Fleet, stack: ExitStack, runs: Runs) -> None:
    """Each model is asked once, though each question was sent four times."""
    channels = [f"twins-{number}" for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for channel in channels:
            start = partial(runs.start, channel=channel, key="same", count=20, pause=0.005)
            twins = list(pool.map(start, fleet.ports * 2))
            assert len({one.run for one in twins}) == 1
    readers = watch(stack, twins[-1:], fleet.port)
    settle(
        "two identical requests at once on two pods", readers, {"done"}, note="12 questions, each asked four times at once"
    )
    again = runs.start(channel=channels[-1], key="same")
    assert again.run == twins[0].run
    for channel in channels:
        eventually(lambda channel=channel: "finished" in runs.noted(channel), 5)  # type: ignore[misc]
        assert runs.noted(channel) == ["asked", "finished"]


def test_a_run_is_stopped_from_another_pod_before_its_first_item_in_the_middle_twice_and_after_its_end(
    fleet: Fleet, stack: ExitStack, runs: Runs
) -> None:
    here, there = fleet.ports
    early = runs.start(here, first=60)
    middle = runs.start(here, count=10_000)
    over = runs.start(here, count=5)
    readers = watch(stack, [early, middle, over], fleet.port)
    (*_, at_work) = [reader for reader in readers if reader.started is middle]
    at_work.wait_for_tokens(10)
    eventually(lambda: runs.told(over.run, there)["state"] == "done", 5)
    stopped = time.monotonic()
    assert [runs.stop(one.run, there) for one in (early, middle, over)] == [202, 202, 200]
    assert runs.stop(middle.run, there) in (202, 200)
    for reader in readers:
        reader.wait_for(lambda _, one=reader: one.ends, 10)  # type: ignore[misc]
    took = max(reader.end_seen() for reader in readers) - stopped
    assert took < 3, took
    assert runs.stop(middle.run, there) == 200
    settle(
        "stop from another pod: before the first item, in the middle, twice, after the end",
        readers,
        {"stopped", "done"},
        note=f"within {took * 1000:.0f} ms",
    )
    assert runs.noted(early.channel) == runs.noted(middle.channel) == ["asked", "stopped"]
    assert runs.noted(over.channel) == ["asked", "finished"]
    assert runs.stop(f"{over.channel}~{'0' * 32}", there) == 404


def test_sigterm_lets_runs_end_within_their_grace_and_tells_the_others(
    fleet: Fleet, stack: ExitStack, runs: Runs
) -> None:
    """The readers move to the other pod within the drain's second, and watch on while the old one finishes."""
    leaving, staying = fleet.servers
    ending = [runs.start(leaving.port, count=125) for _ in range(3)]  # 2.5 s of them
    late = [runs.start(leaving.port, count=10_000) for _ in range(3)]
    readers, others = watch(stack, ending, leaving.port), watch(stack, late, leaving.port)
    for reader in [*readers, *others]:
        reader.wait_for_tokens(10)
        reader.use(fleet.port)
    fleet.nginx.serve([staying.port])
    leaving.terminate()
    began = time.monotonic()
    moved = {}
    for reader in [*readers, *others]:
        reader.wait_for(lambda _, one=reader: one.reconnects, 5)  # type: ignore[misc]
        moved[reader] = len(reader.tokens)
    assert runs.told(late[0].run, staying.port)["state"] == "running"
    leaving.wait(RUN_GRACE + 8)
    took = time.monotonic() - began
    leaving.start()
    fleet.nginx.serve(fleet.ports)
    settle("SIGTERM in the middle of runs that end within SSE_RUN_GRACE", readers, {"done"})
    ends = settle("and of runs that do not", others, {"lost"}, note=f"the pod left after {took:.1f} s")
    assert {end["error"] for end in ends} == {"drained"}
    assert RUN_GRACE - 0.5 < took < RUN_GRACE + 5, took
    assert all(len(reader.tokens) > count for reader, count in moved.items()), "nothing came after the move"
    assert [runs.noted(one.channel) for one in late] == [["asked", "stopped"]] * 3


@pytest.mark.slow
def test_an_instance_cut_off_from_the_log_stores_nothing_after_another_has_ended_its_runs(
    fleet: Fleet, stack: ExitStack, runs: Runs
) -> None:
    """Its runs are lost, told by the other instance. It finds that out before it stores what it has yielded since."""
    cut_off, well = fleet.servers
    started = [runs.start(cut_off.port, count=10_000) for _ in range(4)]
    short = [runs.start(cut_off.port, count=150) for _ in range(2)]  # these end while it is cut off
    readers = watch(stack, [*started, *short], well.port)
    for reader in readers:
        reader.wait_for_tokens(10)
    fleet.networks[0].silence()
    silenced = time.monotonic()
    try:
        for reader in readers:
            reader.wait_for(lambda _, one=reader: one.ends, 15)  # type: ignore[misc]
        took = max(reader.end_seen() for reader in readers) - silenced
    finally:
        fleet.networks[0].speak()
    for one in started:
        eventually(lambda one=one: runs.noted(one.channel) == ["asked", "stopped"], 10)  # type: ignore[misc]
    settle(
        "an instance cut off from Redis in the middle of its runs", readers, {"lost"}, note=f"told within {took:.1f} s"
    )
    assert took < LOST_WITHIN + 3, "the network's silence is noticed after 2 s"
    # Whoever reads the channel now reads the same.
    settle("the same channels, read again", watch(stack, [*started, *short], well.port, 1), {"lost"})
