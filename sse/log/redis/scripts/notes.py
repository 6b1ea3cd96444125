"""Notes: small values with an expiry that all workers share."""

from __future__ import annotations

from typing import Final

from .head import Script

# KEYS: meta, events, the hash of the notes of one kind. A field is a name, its value "<expires, server ms> <value>".
# ARGV: seen, name, value, ms until it expires, "any", "none" or "is", and the value expected for "is"
# Returns 1 if it was put.
PUT: Final = Script("""
local now, name = clock(), ARGV[2]
local raw, present = redis.call('HGET', KEYS[3], name), nil
if raw then
  local expires, value = string.match(raw, '^(%d+) (.*)$')
  if tonumber(expires) > now then present = value end
end
if (ARGV[5] == 'none' and present) or (ARGV[5] == 'is' and present ~= ARGV[6]) then return 0 end
redis.call('HSET', KEYS[3], name, string.format('%.0f ', now + ARGV[4]) .. ARGV[3])
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
return 1
""")

# KEYS: meta, events, the hash of the notes of one kind. ARGV: seen
# Returns names and values in turn; drops what has expired.
NOTES: Final = Script("""
local raw, found, now = redis.call('HGETALL', KEYS[3]), {}, clock()
for i = 1, #raw, 2 do
  local expires, value = string.match(raw[i + 1], '^(%d+) (.*)$')
  if tonumber(expires) > now then
    found[#found + 1] = raw[i]
    found[#found + 1] = value
  else
    redis.call('HDEL', KEYS[3], raw[i])
  end
end
return found
""")
