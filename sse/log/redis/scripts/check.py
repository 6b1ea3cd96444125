"""Whether a Redis user may do what the scripts do."""

from __future__ import annotations

from typing import Final

from .head import Script

# KEYS: meta, events, two keys that exist for the length of this script. Is the log ours, and may this user do all that
# the other scripts do? Redis 7 does not say which command it was that a script was not allowed.
CHECK: Final = Script("""
local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then error('-' .. reply.err .. ' [' .. command .. ']', 0) end
end
local key, other = KEYS[3], KEYS[4]
try('UNLINK', other)
try('DEL', key)
try('XADD', key, '1-1', 'c', '')
try('XRANGE', key, '-', '+', 'COUNT', 1)
try('XLEN', key)
try('XDEL', key, '1-1')
try('XTRIM', key, 'MINID', '=', '1-2')
try('XSETID', key, '1-2')
try('RENAME', key, other)
try('UNLINK', other)
try('ZADD', key, 0, 'a')
try('ZCARD', key)
try('ZRANGE', key, 0, 0)
try('ZREVRANGE', key, 0, 0)
try('ZRANGEBYLEX', key, '-', '+')
try('ZRANGEBYSCORE', key, 0, 0)
try('ZREM', key, 'b')
try('ZREMRANGEBYLEX', key, '-', '[a')
try('HSET', key, 'a', 'b')
try('HGET', key, 'a')
try('HINCRBY', key, 'c', 1)
try('HMGET', key, 'a')
try('HGETALL', key)
try('HLEN', key)
try('HEXISTS', key, 'a')
try('HDEL', key, 'a', 'c')
try('SET', key, 'a', 'NX', 'PX', 1000)
try('PEXPIRE', key, 1000)
try('PTTL', key)
try('GET', key)
try('DEL', key)
open()
stream()
return 1
""")
