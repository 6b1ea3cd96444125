"""How a long-lived loop survives an exception: it logs the exception, at most once a minute, and goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

# Seconds between two log entries about the same failure.
SAY_AGAIN = 60.0

# Seconds until a duty that failed has its next turn.
AFTER_FAILURE = 1.0


class Failures:
    """Logs exceptions that loops survive: each kind with its traceback, at most once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: dict[str, float] = {}

    def report(self, what: str) -> None:
        """Log the exception that is being handled. what: what failed, and what follows."""
        now = time.monotonic()
        if now - self._said.get(what, -SAY_AGAIN) >= SAY_AGAIN:
            self._said[what] = now
            self._logger.exception("%s (said once a minute)", what)

    def over(self, what: str, news: str) -> None:
        """Log the news if ``what`` was reported; its next failure is then logged at once."""
        if self._said.pop(what, None) is not None:
            self._logger.warning("%s", news)


def repeat(
    name: str, duty: Callable[[], float], stop: threading.Event, logger: logging.Logger, *, first: float
) -> None:
    """Do a duty until ``stop`` is set: after ``first`` seconds, and then after as many seconds as it returns.

    An exception costs the duty a turn and never ends the loop.
    """
    failures, failure = Failures(logger), f"{name} failed; it is tried again each second"
    pause = first
    while not stop.wait(pause):
        try:
            pause = duty()
        except Exception:
            pause = AFTER_FAILURE
            failures.report(failure)
        else:
            failures.over(failure, f"{name} works again")
