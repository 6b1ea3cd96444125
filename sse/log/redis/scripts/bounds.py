"""What the log holds, and whether it is still the log that a worker knew."""

from __future__ import annotations

from typing import Final

from .head import Script

# KEYS: meta, events. ARGV: seen
# Returns {created, latest, trimmed, oldest or "", server ms, lost or ""}.
BOUNDS: Final = Script("""
local log, info = open(), stream()
reconcile(log, info)
local latest = newest(log.last, info['last-generated-id'] or '0-0')
-- Redis 7 remembers the newest entry that XDEL removed: a hole in the middle, of which `oldest` says nothing.
local trimmed = newest(log.trimmed, info['max-deleted-entry-id'] or '0-0')
return {log.created, latest, trimmed, info.first, clock(), log.lost}
""")

# KEYS: meta, events. ARGV: seen, the newest event that the worker has stored or read ('' for none)
# What a worker says first on a new connection: the Redis at its other end may not be the one that it knew.
JOIN: Final = Script("""
local log, info, held = open(), stream(), ARGV[2]
reconcile(log, info)
if held == '' then return 0 end
-- All below these is known to be gone, and whoever asks for it is told.
local gone = newest(newest(log.trimmed, info['max-deleted-entry-id'] or '0-0'), log.lost ~= '' and log.lost or '0-0')
if newest(gone, held) == gone or #redis.call('XRANGE', EVENTS, held, held) > 0 then return 0 end
mark(log, held)
return 1
""")
