from __future__ import annotations

import threading
import time

import pytest

from health.signs.lag import INTERVAL, LagProbe, LagWindow
from tests.support.wait import eventually


def test_the_lag_is_how_much_longer_a_sleep_took() -> None:
    window = LagWindow()
    window.sleeping(10.0)
    window.woke(10.3)
    assert window.current(10.3) == pytest.approx(0.3)


def test_waking_early_is_no_lag() -> None:
    window = LagWindow()
    window.sleeping(10.0)
    window.woke(9.99)
    assert window.current(9.99) == 0.0


def test_a_sleep_that_is_overdue_counts_before_it_ends() -> None:
    window = LagWindow()
    window.sleeping(10.0)
    assert window.current(12.5) == pytest.approx(2.5)
    assert window.longest(12.5) == pytest.approx(2.5)


def test_the_longest_lag_is_remembered_for_ten_seconds_and_then_forgotten() -> None:
    window = LagWindow()
    for second in range(100, 130):
        window.sleeping(float(second))
        window.woke(second + (0.7 if second == 105 else 0.01))
        remembered = window.longest(second + 0.9)
        assert remembered == pytest.approx(0.7 if 105 <= second < 115 else 0.01), second


def test_an_old_lag_is_forgotten_even_when_nothing_was_measured_since() -> None:
    window = LagWindow()
    window.sleeping(100.0)
    window.woke(100.7)
    window._last = 0.0
    assert window.longest(109.0) == pytest.approx(0.7)
    assert window.longest(111.0) == 0.0


def test_a_window_without_samples_is_quiet() -> None:
    assert (LagWindow().current(5.0), LagWindow().longest(5.0)) == (0.0, 0.0)


def test_a_thread_that_keeps_the_interpreter_lock_shows_as_lag() -> None:
    stop = threading.Event()
    probe = LagProbe(stop)
    thread = threading.Thread(target=probe.run)
    thread.start()
    try:
        eventually(lambda: probe.longest() > 0.0)
        # Sorting is one C call that does not release the interpreter lock.
        numbers = [(i * 7919) % 1_000_003 for i in range(1_500_000)]
        began = time.monotonic()
        numbers.sort()
        took = time.monotonic() - began
        assert eventually(lambda: probe.longest() > took - INTERVAL - 0.1, 3.0)
    finally:
        stop.set()
        thread.join(2)
    assert not thread.is_alive()
