"""What the log holds, and whether it is still the log that a worker knew."""

from __future__ import annotations

from typing import Final

from .book import FUNCTIONS
from .head import WHOLE, Script

# KEYS: meta, events. ARGV: seen
# Returns {created, latest, trimmed, oldest or "", server ms, lost or "", began or "0-0", erased or "0-0"}.
BOUNDS: Final = Script(
    FUNCTIONS,
    """
local log, info = open_all(), stream()
reconcile(log, info)
local latest = newest(log.last, info['last-generated-id'] or '0-0')
return {log.created, latest, log.trimmed, info.first, clock(), log.lost, read_book(log).began,
  log.erase}
""",
)

# KEYS: meta, events. ARGV: seen, the newest event that the worker has stored or read ('' for none)
# What a worker says first on a new connection: the Redis at its other end may not be the one that it knew.
JOIN: Final = Script(
    WHOLE,
    """
local log, info, held = open_all(), stream(), ARGV[2]
reconcile(log, info)
if held == '' then return 0 end
-- All below these is known to be gone, and whoever asks for it is told.
local gone = newest(newest(log.trimmed, log.erase), log.lost ~= '' and log.lost or '0-0')
if newest(gone, held) == gone or #redis.call('XRANGE', EVENTS, held, held) > 0 then return 0 end
mark(log, held)
return 1
""",
)
