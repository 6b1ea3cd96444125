"""A stream's states, its lease and its retry."""

from __future__ import annotations

import itertools

import pytest

from sse.streams.group import Group, Subscription
from sse.streams.stream import (
    TRANSITIONS,
    IllegalTransition,
    State,
    Stream,
    lease,
    spread_retry,
)

# The table a second time, in words, so that a slip in one of the two is found.
MAY = {
    (State.OPENING, State.REPLAYING): "it is taken over, or its generator has its first turn",
    (State.OPENING, State.ENDING): "it must end before it has begun",
    (State.OPENING, State.CLOSED): "the client left before the first byte",
    (State.REPLAYING, State.LIVE): "it has reached its group",
    (State.REPLAYING, State.ENDING): "the drain does not wait for a replay",
    (State.REPLAYING, State.CLOSED): "the client left",
    (State.LIVE, State.LAGGING): "its socket is full",
    (State.LIVE, State.ENDING): "drain, lease, token",
    (State.LIVE, State.CLOSED): "the client left",
    (State.LAGGING, State.LIVE): "it has caught up",
    (State.LAGGING, State.ENDING): "drain, lease, token",
    (State.LAGGING, State.CLOSED): "write time-out, or the client left",
    (State.ENDING, State.LINGERING): "all is sent",
    (State.ENDING, State.CLOSED): "the client left, or does not read the end",
    (State.LINGERING, State.CLOSED): "its FIN came, or did not come in time",
}


def stream_in(state: State) -> Stream:
    stream = Stream(Group(Subscription(frozenset("a")), 0.0), 0, now=0.0, ends_at=float("inf"), client="-")
    stream.state = state
    return stream


@pytest.mark.parametrize(
    ("before", "after"),
    [pytest.param(a, b, id=f"{a} to {b}") for a, b in itertools.product(State, repeat=2)],
)
def test_a_stream_changes_state_only_as_the_table_allows(before: State, after: State) -> None:
    stream = stream_in(before)
    if (before, after) in MAY:
        stream.become(after)
        assert stream.state == after
    else:
        with pytest.raises(IllegalTransition, match=f"{before} cannot become {after}"):
            stream.become(after)
        assert stream.state == before, "a refused transition changes nothing"


def test_every_state_can_be_reached_and_can_end() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {State.OPENING}
    for _ in State:
        reached |= {after for state in reached for after in TRANSITIONS[state]}
    assert reached == set(State)
    assert all(State.CLOSED in TRANSITIONS[state] for state in State if state != State.CLOSED), (
        "a client can always leave"
    )
    assert not TRANSITIONS[State.CLOSED]


@pytest.mark.parametrize(
    ("max_age", "expires_in", "earliest", "latest", "reason"),
    [
        pytest.param(100.0, None, 80, 100, "lease", id="lease"),
        pytest.param(100.0, 50.0, 50, 50, "token", id="token ends before the lease"),
        pytest.param(100.0, 500.0, 80, 100, "lease", id="token outlives the lease"),
        pytest.param(0.0, 50.0, 50, 50, "token", id="token without a lease"),
        pytest.param(100.0, -5.0, 0, 0, "token", id="token has expired already"),
        pytest.param(0.0, None, float("inf"), float("inf"), None, id="neither"),
    ],
)
def test_a_stream_ends_with_its_lease_and_never_later_than_its_token(
    max_age: float, expires_in: float | None, earliest: float, latest: float, reason: str | None
) -> None:
    now = 1000.0
    for _ in range(200):
        ends_at, ends_as = lease(now, max_age, expires_in)
        assert now + earliest <= ends_at <= now + latest
        assert reason in (ends_as, None)


def test_leases_and_retries_of_streams_that_opened_together_are_spread() -> None:
    ends = [lease(0.0, 1000.0, None).ends_at for _ in range(500)]
    assert max(ends) - min(ends) > 150
    assert {lease(0.0, 100.0, 90.0).reason for _ in range(500)} == {"lease", "token"}, "whichever is earlier"
    retries = [spread_retry(2000) for _ in range(500)]
    assert min(retries) >= 1000 and max(retries) <= 3000
    assert max(retries) - min(retries) > 1500


def test_the_smallest_retry_is_not_rounded_down_to_a_reconnect_storm() -> None:
    assert min(spread_retry(10) for _ in range(500)) >= 5
