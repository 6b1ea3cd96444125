"""When a worker's runs are lost, when they are not, and who may end them: with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sse.log import Log
from sse.runs.leases import DEAD, RENEW
from sse.runs.states import State
from tests.sse.runs.parts import stored
from tests.sse.runs.world import Place, World


@pytest.fixture
def world(log: Log) -> World:
    return World(log)


def start(place: Place, channel: str = "a", close: bool = True) -> str:
    """Start a run that has stored one item, and goes on."""
    info = place.runs.run(channel, place.world.items(channel, None, 1, "endless"), close=close)
    (run,) = [run for run in place.of_mine() if run.claim.run == info.run]
    place.pull(run, 1)
    place.flush()
    assert run.events == 1
    return info.run


def seconds_until(world: World, condition: Callable[[], object], most: float = 30.0) -> float:
    began = world.now
    while not condition():
        world.run_for(0.5)
        assert world.now - began < most, "it never happened"
    return world.now - began


def ends(world: World, channel: str = "a") -> list[str]:
    return [str(end["state"]) for end in stored(world.log, channel).ends]


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_the_runs_of_a_dead_worker_are_lost_within_ten_seconds(world: World, at: float) -> None:
    dies, lives, also = world.add(), world.add(), world.add()
    run = start(dies)
    world.run_for(10 + at)
    dies.dead = True
    took = seconds_until(world, lambda: ends(world))
    assert DEAD - RENEW < took <= DEAD + 1.5
    assert ends(world) == ["lost"]
    world.run_for(20)
    assert ends(world) == ["lost"], "once"
    assert lives.runs.find(run) == also.runs.find(run)
    found = lives.runs.find(run)
    assert found is not None and (found.state, found.events, found.worker) == (State.LOST, 1, dies.runs.worker)
    assert [place.runs._stats.runs_ended["lost"] for place in (lives, also)].count(1) == 1
    assert stored(world.log, "a").closed


def test_a_new_worker_ends_what_the_only_one_before_it_left(world: World) -> None:
    dies = world.add()
    start(dies)
    dies.dead = True
    world.add()
    assert seconds_until(world, lambda: ends(world)) <= DEAD + 1.0


def test_with_close_false_a_lost_run_leaves_the_channel_open(world: World) -> None:
    dies, lives = world.add(), world.add()
    start(dies, close=False)
    world.run_for(8)
    dies.dead = True
    seconds_until(world, lambda: ends(world))
    assert not stored(world.log, "a").closed
    start(lives, close=False)


def test_a_worker_that_lives_keeps_its_runs(world: World) -> None:
    here, _ = world.add(), world.add()
    start(here)
    world.run_for(300)
    assert ends(world) == [] and len(here.of_mine()) == 1


@pytest.mark.parametrize("away", [3.0, 10.0, 60.0])
def test_no_run_is_lost_because_the_log_was_away(world: World, away: float) -> None:
    places = [world.add() for _ in range(3)]
    for number, place in enumerate(places):
        start(place, f"c{number}")
    world.run_for(10)
    world.log_away = True
    world.run_for(away)
    world.log_away = False
    world.run_for(60)
    for number, place in enumerate(places):
        assert ends(world, f"c{number}") == []
        (run,) = place.of_mine()
        place.pull(run, 3)
        place.flush()
        assert run.events == 4


def test_no_run_is_lost_because_the_logs_clock_was_set(world: World) -> None:
    here, _ = world.add(), world.add()
    start(here)
    world.run_for(10)
    world.ahead = 3600
    world.run_for(60)
    assert ends(world) == []


def test_no_run_is_lost_because_the_reaper_was_frozen(world: World) -> None:
    here, frozen = world.add(), world.add()
    start(here)
    world.run_for(10)
    frozen.frozen = True
    here.link.away = True
    world.run_for(4)
    here.link.away = False
    world.run_for(3)
    frozen.frozen = False
    world.run_for(30)
    assert ends(world) == []


def test_a_worker_that_was_cut_off_finds_its_runs_ended_and_appends_nothing(world: World) -> None:
    for close in (True, False):
        channel = f"c{close}"
        cut_off, _ = world.add(), world.add()
        start(cut_off, channel, close)
        world.run_for(10)
        (run,) = cut_off.of_mine()
        cut_off.link.away = True
        cut_off.pull(run, 5)
        world.run_for(15)
        assert ends(world, channel) == ["lost"]
        assert run.outcome is None, "it does not know yet"
        cut_off.link.away = False
        world.now += 1.0
        cut_off.flush()  # before its lease is renewed by the clock
        assert run.is_cut
        world.run_for(10)
        assert run.state is State.LOST and run.pulled.is_set()
        assert len(stored(world.log, channel).items) == 1 and ends(world, channel) == ["lost"]
        found = cut_off.runs.find(run.claim.run)
        assert found is not None and found.state is State.LOST
        assert cut_off.runs._stats.runs_ended["lost"] == 0, "the other worker has counted it"
        assert len(cut_off.runs) == 0


def test_a_worker_that_was_frozen_past_its_lease_goes_on_if_nobody_noticed(world: World) -> None:
    alone = world.add()
    start(alone)
    world.run_for(10)
    alone.frozen = True
    world.run_for(20)
    alone.frozen = False
    world.run_for(20)
    (run,) = alone.of_mine()
    alone.pull(run, 2)
    alone.flush()
    assert run.events == 3 and ends(world) == []


def test_an_owner_that_comes_back_first_keeps_its_run(world: World) -> None:
    """The reaper has seen the lease missing; before it acts, the owner confirms its claim."""
    owner, reaper = world.add(), world.add()
    run = start(owner)
    world.run_for(10)
    (claim,) = reaper.runs.reaper._book.claims()
    owner.frozen = True
    reaper.frozen = True
    world.run_for(20)
    owner.frozen = False
    owner.turn()
    reaper.runs.reaper._end(claim)
    assert ends(world) == []
    found = reaper.runs.find(run)
    assert found is not None and found.state is State.RUNNING


@pytest.mark.parametrize("answered", [True, False])
def test_an_append_without_an_answer_is_not_repeated_when_the_log_may_have_forgotten_it(
    world: World, answered: bool
) -> None:
    place = world.add()
    start(place)
    world.run_for(10)
    (run,) = place.of_mine()
    place.link.loses_answer = not answered
    place.link.away = answered
    place.pull(run, 1)
    place.flush()
    place.link.away = True
    world.run_for(600)
    place.link.away = False
    world.run_for(10)
    items = [item.partition(":")[2] for item in stored(world.log, "a").items]
    if answered:  # certainly not stored
        place.pull(run, 1)
        place.flush()
        assert items == ["0", "1"] and ends(world) == []
    else:
        assert items == ["0", "1"] and ends(world) == ["error"]


@pytest.mark.parametrize("calls", range(8))
@pytest.mark.parametrize("after", [False, True])
def test_a_reaper_that_dies_in_the_middle_leaves_it_to_the_next(world: World, calls: int, after: bool) -> None:
    owner, first, second = world.add(), world.add(), world.add()
    run = start(owner)
    world.run_for(10)
    owner.dead = True
    second.frozen = True
    world.run_for(DEAD - 1)
    first.link.dies_in, first.link.dies_after = calls + 4, after
    world.run_for(2)
    second.frozen = False
    world.run_for(25)
    assert ends(world) == ["lost"]
    found = second.runs.find(run)
    assert found is not None and found.state is State.LOST


@pytest.mark.parametrize("calls", range(14))
@pytest.mark.parametrize("after", [False, True])
def test_a_start_that_dies_in_the_middle_leaves_no_run_without_an_end(world: World, calls: int, after: bool) -> None:
    place, other = world.add(), world.add()
    place.link.dies_in, place.link.dies_after = calls, after
    world.doing(place, lambda: place.runs.run("a", world.items("a", "k", 1, "returns"), key="k"))
    place.dead = True
    world.run_for(20)
    assert ends(world) in ([], ["lost"])
    assert not any(world.notes("run-channel").values())
    if not ends(world):  # nothing of it was written down, so the same key starts it
        other.runs.run("a", world.items("a", "k", 1, "returns"), key="k")
        world.run_for(1)
        assert len(other.of_mine()) == 1
