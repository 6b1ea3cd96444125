"""The table of a run's states: which steps there are, and who may take them."""

from __future__ import annotations

import itertools

import pytest

from sse.runs.states import ENDS, OPEN, STEPS, Actor, State, WrongStep, check_step

#: The table, written down a second time: from, to, who.
ALLOWED = {
    ("starting", "running", "owner"),
    ("starting", "lost", "reaper"),
    ("running", "done", "iterable"),
    ("running", "stopped", "stopper"),
    ("running", "error", "iterable"),
    ("running", "error", "owner"),
    ("running", "lost", "reaper"),
    ("running", "lost", "drain"),
}

ALL = [*itertools.product(State, State, Actor)]


@pytest.mark.parametrize(("before", "after", "by"), ALL, ids=["-".join(one) for one in ALL])
def test_a_step_is_taken_only_by_whom_the_table_names(before: State, after: State, by: Actor) -> None:
    if (before, after, by) in ALLOWED:
        check_step(before, after, by)
    else:
        with pytest.raises(WrongStep, match=f"{by} may not take a run from {before} to {after}"):
            check_step(before, after, by)


def test_every_state_is_open_or_an_end_and_no_step_leaves_an_end() -> None:
    assert {*OPEN, *ENDS} == set(State)
    assert not {before for before, _ in STEPS} & set(ENDS)


def test_every_end_can_be_reached_from_the_beginning() -> None:
    reached = {State.STARTING}
    for _ in State:
        reached |= {after for before, after in STEPS if before in reached}
    assert reached == set(State)


def test_a_run_that_goes_on_can_be_ended_when_its_owner_is_dead() -> None:
    for state in OPEN:
        assert Actor.REAPER in STEPS[state, State.LOST]
