"""How often one key may publish: a limit per second, counted in each worker.

The generic cell rate algorithm (GCRA): one timestamp for each key, no window at whose edge twice the rate
gets through, and an exact answer to "when again" for Retry-After. Counted per worker, not per pod or cluster:
it stops one publisher from taking a worker from the others, and a shared counter would put a round trip in
front of each publish. The sum over all workers is what a key can reach.
"""

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from throttled import BaseRateLimiter

# Keys that are remembered, each about 300 bytes. The one that published least recently is forgotten first,
# which lets it begin with a full burst again: no way to exceed a rate by more than that.
MAX_KEYS: Final = 10_000

# The library counts whole seconds and whole units: a rate with three decimals is that many in a thousand
# seconds.
_PERIOD: Final = 1000


class PublishRate:
    """Admits `per_second` publish requests (0: any number) a second for each key, after a burst of one
    second's.

    Thread-safe; 5 µs a call.
    """

    def __init__(self, per_second: float) -> None:
        self._limiter = _limiter(per_second) if per_second > 0 else None

    def wait(self, subject: str) -> float:
        """0.0 if `subject` (`Grant.subject`) may publish now, which is then counted; else the seconds,
        rounded up to whole ones as Retry-After has them (RFC 9110 §10.2.3), until it may: the answer is
        429."""
        if self._limiter is None:
            return 0.0
        result = self._limiter.limit(subject)
        return float(max(1, math.ceil(result.state.retry_after))) if result.limited else 0.0


def _limiter(per_second: float) -> "BaseRateLimiter":
    from throttled import (  # only where it is used
        MemoryStore,
        Quota,
        Rate,
        RateLimiterRegistry,
        RateLimiterType,
    )

    quota = Quota(
        Rate(period=timedelta(seconds=_PERIOD), limit=max(1, round(per_second * _PERIOD))),
        burst=max(1, math.ceil(per_second)),
    )
    limiter = RateLimiterRegistry.get(RateLimiterType.GCRA.value)
    return limiter(quota, MemoryStore(options={"MAX_SIZE": MAX_KEYS}))
