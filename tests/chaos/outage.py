"""What publishers, streams and clients must see while Redis is down and after its return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.chaos.reader import Reader
from tests.chaos.recorder import Recorder

REFUSED_WITHIN = 0.25  # seconds, while Redis is known to be down
DELIVERED_WITHIN = 2.0  # seconds from Redis's return to the first event


class Outage(NamedTuple):
    """Times: ``time.monotonic``; known: when every worker knew that Redis was down."""

    down: float
    known: float
    up: float

    def check(self, readers: Sequence[Reader], recorder: Recorder) -> str:
        """Check all of it; return the figures, as a note for the book."""
        refused = recorder.since(self.known, self.up - REFUSED_WITHIN)
        assert len(refused) >= 5, f"hardly anything was tried: {recorder.since(self.down)[:5]}"
        assert {attempt.status for attempt in refused} == {503}, refused
        assert all(attempt.retry_after for attempt in refused), "a 503 without Retry-After"
        # On a busy machine, one in ten may wait for its turn.
        slow = sorted(attempt.took for attempt in refused)[int(len(refused) * 0.9)]
        assert slow < REFUSED_WITHIN, f"known to be away, and yet {slow:.3f} s for a 503"
        for reader in readers:
            assert reader.heartbeats(self.known, self.up) > 0, f"{reader}: an open stream without heartbeats"
        return f"503 within {slow * 1000:.0f} ms (p90 of {len(refused)}), " + self.check_return(readers)

    def check_return(self, readers: Sequence[Reader]) -> str:
        first = [reader.wait_for_first_after(self.up, 6) - self.up for reader in readers]
        assert max(first) < DELIVERED_WITHIN, f"the first event came {max(first):.2f} s after Redis's return"
        return f"first event {min(first) * 1000:.0f} to {max(first) * 1000:.0f} ms after its return"
