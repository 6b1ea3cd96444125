"""Callers that share one fetch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sse.runtime.single_flight import SingleFlight
from tests.support.wait import eventually


class Fetch:
    """A fetch that lasts until `land` is set."""

    def __init__(self, outcome: Any = "page") -> None:
        self.calls = 0
        self.land = threading.Event()
        self._outcome = outcome

    def __call__(self) -> Any:
        self.calls += 1
        assert self.land.wait(5)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def joined(flights: SingleFlight, key: str, callers: int) -> bool:
    """Tell whether at least so many callers wait for this key's fetch."""
    flight = flights._flights.get(key)
    return flight is not None and len(flight.landed._cond._waiters) >= callers  # type: ignore[attr-defined]


def test_callers_with_the_same_key_share_one_fetch() -> None:
    flights, fetch, other = SingleFlight(), Fetch(), Fetch("other")
    other.land.set()
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(flights.do, "a", fetch) for _ in range(4)]
        eventually(lambda: joined(flights, "a", 3))
        assert pool.submit(flights.do, "b", other).result(5) == "other", "another key had to wait"
        fetch.land.set()
        assert [answer.result(5) for answer in answers] == ["page"] * 4
    assert fetch.calls == 1


def test_a_failed_fetch_fails_for_all_waiting_callers_and_no_later_one() -> None:
    flights, fetch = SingleFlight(), Fetch(ValueError("told to fail"))
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(flights.do, "a", fetch) for _ in range(3)]
        eventually(lambda: joined(flights, "a", 2))
        fetch.land.set()
        for answer in answers:
            with pytest.raises(ValueError, match="told to fail"):
                answer.result(5)
    assert flights.do("a", lambda: "next") == "next"


def test_a_result_is_not_cached() -> None:
    flights = SingleFlight()
    assert [flights.do("a", lambda n=n: n) for n in range(3)] == [0, 1, 2]  # type: ignore[misc]
