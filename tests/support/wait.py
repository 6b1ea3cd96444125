"""Waits for a condition, with a deadline; no test sleeps and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T],
    timeout: float = 5.0,
    message: str | Callable[[], str] = "the condition never held",
    *,
    interval: float = 0.02,
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    condition: called at least once, and once more after the deadline.
    timeout: seconds.
    message: what failed, or a function that returns it at the deadline (with the last state).
    interval: seconds between two calls.
    Raises AssertionError after ``timeout``; what ``condition`` raises is passed on at once.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        if outcome := condition():
            return outcome
        if late:
            text = message if isinstance(message, str) else message()
            raise AssertionError(f"{text} (waited {timeout:g} s, last saw {outcome!r})")
        time.sleep(interval)
