"""Whatever happens, in whatever order, every run has exactly one end. A model over random faults (hypothesis)."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sse.log import ChannelClosed, Log, LogUnavailable
from sse.runs.states import RunActive
from tests.sse.log.redis_place import redis_url
from tests.sse.runs.parts import open_a_log
from tests.sse.runs.world import Place, World

CHANNELS = ("a", "b", "c", "d", "e")
FATE = ("drained", "killed", "frozen", "cut off", "an answer lost")
KEYS = (None, "k", "l")
MOST_PLACES = 4

numbers = st.integers(0, 99)


class Faults(RuleBasedStateMachine):
    """Each rule is something that a user, a worker or fate does."""

    fresh: Callable[[], Log]
    counted: Counter[str] = Counter()

    @initialize(places=st.integers(1, 3))
    def begin(self, places: int) -> None:
        self.log = type(self).fresh()
        self.world = World(self.log)
        for _ in range(places):
            self.world.add()
        self.ids: list[str] = []

    def one(self, number: int) -> Place:
        moving = self.world.moving()
        return moving[number % len(moving)]

    def somebody_moves(self) -> bool:
        return hasattr(self, "world") and bool(self.world.moving())

    # ── users ───────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(somebody_moves)
    @rule(
        number=numbers,
        channel=st.sampled_from(CHANNELS),
        key=st.sampled_from(KEYS),
        count=st.integers(0, 4),
        end=st.sampled_from(["returns", "raises", "endless"]),
        close=st.booleans(),
    )
    def start(self, number: int, channel: str, key: str | None, count: int, end: str, close: bool) -> None:
        place = self.one(number)
        work = self.world.items(channel, key, count, end)

        def run() -> None:
            try:
                info = place.runs.run(channel, work, key=key, close=close)
            except (RunActive, ChannelClosed, LogUnavailable) as error:
                self.world.counts[type(error).__name__] += 1
                return
            self.world.counts["starts"] += 1
            self.ids.append(info.run)
            if any(own.claim.run == info.run for own in place.of_mine()):
                self.world.owners.setdefault(info.run, place)

        self.world.doing(place, run)

    @precondition(lambda self: self.somebody_moves() and self.ids)
    @rule(number=numbers, which=numbers)
    def stop(self, number: int, which: int) -> None:
        place = self.one(number)

        def stop() -> None:
            try:
                place.runs.stop(self.ids[which % len(self.ids)])
            except LogUnavailable:
                self.world.counts["stops refused"] += 1
            else:
                self.world.counts["stops"] += 1

        self.world.doing(place, stop)

    @precondition(lambda self: not self.log.closed(CHANNELS[-1:]))
    @rule()
    def close_from_outside(self) -> None:
        self.log.append([], close=CHANNELS[-1:])
        self.world.closed.add(CHANNELS[-1])
        self.world.counts["closed from outside"] += 1

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(somebody_moves)
    @rule(which=numbers, times=st.integers(1, 4))
    def pull(self, which: int, times: int) -> None:
        if found := [(place, run) for place in self.world.moving() for run in place.of_mine()]:
            place, run = found[which % len(found)]
            place.pull(run, times)

    @precondition(somebody_moves)
    @rule(times=st.integers(1, 6))
    def pull_all(self, times: int) -> None:
        for place in self.world.moving():
            for run in place.of_mine():
                place.pull(run, times)

    @precondition(somebody_moves)
    @rule(number=numbers, what=st.sampled_from(["flush", "finish", "turn"]))
    def work(self, number: int, what: str) -> None:
        place = self.one(number)
        self.world.doing(place, getattr(place, what))

    @precondition(somebody_moves)
    @rule()
    def finish_all(self) -> None:
        for place in self.world.moving():
            self.world.doing(place, place.flush)
            self.world.doing(place, place.finish)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.world.run_for(seconds)

    # ── fate ────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(somebody_moves)
    @rule(number=numbers, what=st.sampled_from(FATE))
    def fate(self, number: int, what: str) -> None:
        """One worker has bad luck, or is told to end."""
        world, place = self.world, self.one(number)
        world.counts[what] += 1
        if what == "drained":
            place.runs.drain()
            return
        place.troubled = True
        if what == "killed":
            place.dead = True
        elif what == "frozen":
            place.frozen = True
        elif what == "cut off":
            place.link.away = True
        elif what == "an answer lost":
            place.link.loses_answer = True

    @precondition(somebody_moves)
    @rule(number=numbers, calls=st.integers(0, 6), after=st.booleans())
    def die_in_the_middle(self, number: int, calls: int, after: bool) -> None:
        place = self.one(number)
        place.troubled = True
        place.link.dies_in, place.link.dies_after = calls, after

    @rule(number=numbers)
    def the_log_goes_or_comes(self, number: int) -> None:
        self.world.log_away = not self.world.log_away and number % 2 == 0
        self.world.counts["the log away"] += self.world.log_away

    @precondition(lambda self: self.world.ahead < 300)
    @rule()
    def the_logs_clock_is_set_forward(self) -> None:
        self.world.ahead += 100
        self.world.counts["the log's clock set"] += 1

    @rule(number=numbers)
    def recover(self, number: int) -> None:
        """Somebody's trouble is over, or there is a new worker."""
        world = self.world
        world.log_away = False
        if troubled := [place for place in world.places if place.frozen or place.link.away]:
            place = troubled[number % len(troubled)]
            place.frozen = place.link.away = False
        elif len(world.moving()) < MOST_PLACES:
            world.add()

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check(CHANNELS)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.settle(CHANNELS)
            finally:
                self.log.close()
            self.counted.update(self.world.counts)
            self.counted["examples"] += 1


def search(open_one: Callable[[int], Log], examples: int, steps: int) -> Counter[str]:
    """Look for an order of things in which something does not hold; return what has happened.

    open_one: opens a fresh log, given its number.
    """
    numbers = itertools.count()

    class Here(Faults):
        counted: Counter[str] = Counter()
        fresh = staticmethod(lambda: open_one(next(numbers)))

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Here,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    print(f"\n{dict(sorted(Here.counted.items()))}")
    return Here.counted


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings are expected."""
    logger = logging.getLogger("headwater.runs")
    logger.disabled = True
    yield
    logger.disabled = False


def in_memory(number: int) -> Log:
    return open_a_log("memory:")


def test_every_run_has_exactly_one_end_in_memory() -> None:
    counted = search(in_memory, examples=80, steps=50)
    assert counted["starts"] > 20, counted


def test_every_run_has_exactly_one_end_in_sqlite(tmp_path: Path) -> None:
    search(lambda number: open_a_log(f"sqlite:///{tmp_path}/{number}.db"), examples=25, steps=40)


def test_every_run_has_exactly_one_end_in_redis(request: pytest.FixtureRequest) -> None:
    url = redis_url(request)
    search(lambda number: open_a_log(url, sse_redis_prefix=f"model{number}"), examples=15, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
def test_a_long_search(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if engine == "memory":
        search(in_memory, examples=2000, steps=70)
    elif engine == "sqlite":
        search(lambda number: open_a_log(f"sqlite:///{tmp_path}/{number}.db"), examples=400, steps=60)
    else:
        url = redis_url(request)
        search(lambda number: open_a_log(url, sse_redis_prefix=f"model{number}"), examples=250, steps=60)
