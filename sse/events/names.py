"""The channels that belong to the service. Publishers cannot use them: names that begin with ``_`` are reserved."""

from __future__ import annotations

from typing import Final

CANARY_CHANNEL: Final = "_canary"  # heartbeats only, from each worker to its own streams; the probes read it
STATS_CHANNEL: Final = "_stats"  # the console's statistics
# A hub injects their blocks; no log has them. A stream of one has no other channel, because the blocks have no ids
# and so no place in the order of events.
INJECTED_CHANNELS: Final = frozenset({CANARY_CHANNEL, STATS_CHANNEL})
