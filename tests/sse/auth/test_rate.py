"""How often a key may publish."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from throttled import utils

from sse.auth import rate
from sse.auth.rate import PublishRate


class Clock:
    def __init__(self) -> None:
        self.now = 100_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(utils, "now_mono_f", clock)
    return clock


def admitted(limit: PublishRate, subject: str, tries: int) -> int:
    return sum(limit.wait(subject) == 0.0 for _ in range(tries))


@pytest.mark.parametrize("per_second", [1, 7, 50, 1000])
def test_a_key_may_burst_for_a_second_and_then_has_its_rate(per_second: int, clock: Clock) -> None:
    limit = PublishRate(per_second)
    assert abs(admitted(limit, "key", 3 * per_second) - per_second) <= 1
    seconds, through = 20, 0
    for _ in range(seconds):
        clock.now += 1
        through += admitted(limit, "key", 3 * per_second)
    assert through <= seconds * per_second, "never more than the rate"
    assert through >= seconds * (per_second - 1), "rounding may cost one of a full burst, no more"


def test_a_rate_below_one_allows_one_request_in_several_seconds(clock: Clock) -> None:
    limit = PublishRate(0.25)
    assert admitted(limit, "key", 5) == 1
    assert limit.wait("key") == 4.0
    clock.now += 3.9
    assert limit.wait("key") == 1.0, "whole seconds, and never 0 for a refusal"
    clock.now += 0.2
    assert limit.wait("key") == 0.0


def test_keys_do_not_count_against_each_other(clock: Clock) -> None:
    limit = PublishRate(5)
    admitted(limit, "loud", 100)
    assert limit.wait("loud") > 0 and limit.wait("quiet") == 0


def test_a_refused_request_does_not_lengthen_the_wait(clock: Clock) -> None:
    limit = PublishRate(1)
    admitted(limit, "key", 50)
    clock.now += 1.01
    assert limit.wait("key") == 0.0


def test_zero_is_no_limit_and_imports_nothing() -> None:
    assert admitted(PublishRate(0), "key", 10_000) == 10_000
    script = (
        "import sys, sse.auth.rate as r; r.PublishRate(0).wait('k'); sys.exit('throttled' in sys.modules)"
    )
    root = Path(rate.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, timeout=60).returncode == 0


def test_the_number_of_remembered_keys_is_limited(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MAX_KEYS", 100)
    limit = PublishRate(1)
    for number in range(1000):
        limit.wait(f"key{number}")
    store: Any = limit._limiter._store  # type: ignore[union-attr]
    assert len(store._backend.get_client()) <= 100


def test_threads_share_one_rate(clock: Clock) -> None:
    limit, counts = PublishRate(100), []
    threads = [threading.Thread(target=lambda: counts.append(admitted(limit, "key", 200))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert abs(sum(counts) - 100) <= 1
