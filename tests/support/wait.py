"""Waiting for a condition, with a deadline; nothing in these tests sleeps and hopes."""

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

    condition: called at least once, and once more when the deadline has passed.
    timeout: seconds.
    message: what failed, or a function that says so when the time is up (for the state seen last).
    interval: seconds between two looks.
    Raises AssertionError when ``timeout`` has passed; what ``condition`` raises is passed on at once.
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
