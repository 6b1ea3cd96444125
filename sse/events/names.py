"""The service's own channels. Their names begin with ``_``, so publishers cannot use them."""

from __future__ import annotations

from typing import Final

CANARY_CHANNEL: Final = "_canary"  # heartbeats from each worker to its own stream, by which probes judge it
STATS_CHANNEL: Final = "_stats"  # the console's statistics
CONTROL_CHANNEL: Final = "_control"  # in the log, for the workers only: no stream may read it
# Hubs inject their blocks; no log has them. A stream of such a channel has no other one: the blocks have no ids, and so
# no place in the order of events.
INJECTED_CHANNELS: Final = frozenset({CANARY_CHANNEL, STATS_CHANNEL})
