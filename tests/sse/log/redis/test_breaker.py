from __future__ import annotations

import pytest

from sse.log import LogUnavailable
from sse.log.redis.breaker import LONGEST, SHORTEST, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock=clock, chance=lambda: 0.0)


def refused(breaker: Breaker) -> float:
    """How long a request is sent away for."""
    with pytest.raises(LogUnavailable, match="gone") as refusal:
        breaker.admit()
    return refusal.value.retry_after


def test_everyone_passes_as_long_as_nothing_failed(breaker: Breaker) -> None:
    assert breaker.closed and not breaker.admit() and not breaker.admit()


def test_after_one_failure_nobody_waits_and_all_are_told_when_to_come_back(breaker: Breaker) -> None:
    breaker.failed("gone")
    assert not breaker.closed
    assert refused(breaker) == pytest.approx(SHORTEST)


def test_when_the_time_has_passed_one_request_probes_and_the_others_are_still_refused(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.failed("gone")
    clock.now += SHORTEST
    assert breaker.admit()
    assert refused(breaker) > 0
    breaker.succeeded(probe=True)
    assert breaker.closed and not breaker.admit()


def test_each_failed_probe_doubles_the_delay_up_to_a_second(breaker: Breaker, clock: Clock) -> None:
    breaker.failed("gone")
    delays = []
    for _ in range(6):
        delays.append(refused(breaker))
        clock.now += LONGEST
        assert breaker.admit()
        breaker.failed("gone", probe=True)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_requests_that_fail_together_count_once(breaker: Breaker) -> None:
    for _ in range(50):
        breaker.failed("gone")
    assert refused(breaker) == pytest.approx(SHORTEST)


def test_delay_starts_anew_after_a_success(breaker: Breaker, clock: Clock) -> None:
    breaker.failed("gone")
    clock.now += LONGEST
    assert breaker.admit()
    breaker.failed("gone", probe=True)
    breaker.succeeded()  # the follower's, say
    breaker.failed("gone")
    assert refused(breaker) == pytest.approx(SHORTEST)


def test_probe_that_was_killed_does_not_close_the_way_for_ever(breaker: Breaker, clock: Clock) -> None:
    breaker.failed("gone")
    clock.now += LONGEST
    assert breaker.admit()
    breaker.forgo()
    assert breaker.admit()


def test_delays_of_many_workers_are_spread(clock: Clock) -> None:
    delays = []
    for chance in (0.0, 0.5, 0.999):
        breaker = Breaker(clock=clock, chance=lambda chance=chance: chance)  # type: ignore[misc]
        breaker.failed("gone")
        clock.now += LONGEST
        assert breaker.admit()
        breaker.failed("gone", probe=True)
        delays.append(refused(breaker))
    assert delays == pytest.approx([0.2, 0.15, 0.1001])
