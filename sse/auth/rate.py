"""Limits how often one key may publish per second, in each worker.

Uses the generic cell rate algorithm (GCRA): it needs one timestamp per key, has no window edge that lets twice the
rate through, and gives an exact Retry-After. Each worker counts alone: the limit keeps one publisher from
monopolising a worker, and a shared counter would cost each publish a round trip. So a key can reach the sum over
all workers.
"""

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from throttled import BaseRateLimiter

# Keys to remember, about 300 bytes each. The least recently used key is evicted first; it then starts with a full
# burst again, and can exceed its rate by no more than that.
MAX_KEYS: Final = 10_000

# The library counts whole seconds and whole units, so we express a rate with three decimals per 1000 seconds.
_PERIOD: Final = 1000


class PublishRate:
    """Admits ``per_second`` publish requests per key and second (0: no limit), after a burst of one second's worth.

    Thread-safe; 5 µs per call.
    """

    def __init__(self, per_second: float) -> None:
        self._limiter = _limiter(per_second) if per_second > 0 else None

    def wait(self, subject: str) -> float:
        """Count a publish and return 0.0, or return the seconds to wait if it exceeds the rate (answer 429).

        subject: ``Grant.subject``. The wait is rounded up to whole seconds for Retry-After (RFC 9110 §10.2.3).
        """
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
