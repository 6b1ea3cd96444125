"""A circuit breaker: while Redis is known to be down, nobody waits for it.

    closed ──failure──▶ open ──its delay has passed──▶ half-open: one caller probes, the others are refused
       ▲                  ▲                                │
       │                  └────── it failed: twice the delay, up to LONGEST
       └───────────────────────── it succeeded

One failure opens it, because only two kinds are reported here: a refused connection, and an answer that did not
arrive in time. A lost connection says nothing about the server, and an error reply proves it alive. Opening costs
little: the first delay is a tenth of a second.

Why not a library: pybreaker, circuitbreaker and purgatory open for one fixed time. Without growth that is too long
for a hiccup or too short for an outage, and without jitter the workers of all pods probe in step. They also cannot
say when to come back, which publishers are told as Retry-After.

Nobody waits for a lock: callers may be greenlets of different event loops (gevent's thread pool),
where waiting for one another is not safe everywhere. Single assignments are atomic, and the one race that matters,
who probes, is decided by a lock that is only ever tried.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from ..base import LogUnavailable

SHORTEST: Final = 0.1  # seconds; about what a restart of a local Redis takes
LONGEST: Final = 1.0  # seconds; the longest that publishers are refused after Redis has come back
SPREAD: Final = 0.5  # a delay is this share of itself to all of it: spreads the probes of many workers


class Breaker:
    """The breaker that the module's text describes.

    clock: monotonic seconds.
    chance: uniform in [0, 1).
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._delay = 0.0  # seconds; 0 while closed
        self._retry_at = 0.0
        self._reason = ""
        self._probe = threading.Lock()

    @property
    def closed(self) -> bool:
        return self._delay == 0.0

    def admit(self) -> bool:
        """Let a request pass: True if it is the probe, which then owes ``succeeded``, ``failed`` or ``forgo``.

        Raises ``LogUnavailable`` at once while Redis is known to be down, and while another request probes.
        """
        if self._delay == 0.0:
            return False
        left = self._retry_at - self._clock()
        if left > 0 or not self._probe.acquire(blocking=False):
            raise LogUnavailable(self._reason, max(left, SHORTEST), stored="no")
        return True

    def forgo(self) -> None:
        """Give the probe up without a result (its greenlet was killed), so that the next request may probe."""
        self._probe.release()

    def succeeded(self, *, probe: bool = False) -> None:
        """Note that Redis answered."""
        self._delay = 0.0
        if probe:
            self._probe.release()

    def failed(self, reason: str, *, probe: bool = False) -> None:
        """Note that Redis could not be reached, or did not answer in time. reason: told to those refused from now on.

        Requests under way at the same time fail together: only the first of them, and probes, count.
        """
        if self._delay and not probe:
            return
        self._reason = reason
        self._delay = min(self._delay * 2 or SHORTEST, LONGEST)
        self._retry_at = self._clock() + self._delay * (1 - SPREAD * self._chance())
        if probe:
            self._probe.release()
