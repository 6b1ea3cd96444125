"""Whether a Redis user may do what the scripts do."""

from __future__ import annotations

from typing import Final

from .head import Script

# KEYS: meta, events, a key that exists for the length of this script. Is the log ours, and may this user do all that
# the other scripts do? Redis 7 does not say which command it was that a script was not allowed.
CHECK: Final = Script("""
local function try(command, ...)
  local reply = redis.pcall(command, KEYS[3], ...)
  if type(reply) == 'table' and reply.err then error('-' .. reply.err .. ' [' .. command .. ']', 0) end
end
try('DEL')
try('XADD', '1-1', 'c', '')
try('XRANGE', '-', '+', 'COUNT', 1)
try('XTRIM', 'MINID', '=', '1-2')
try('DEL')
try('ZADD', 0, 'a')
try('ZREMRANGEBYLEX', '-', '[a')
try('HSET', 'a', 'b')
try('HMGET', 'a')
try('DEL')
try('SET', 'a', 'NX', 'PX', 1000)
try('PEXPIRE', 1000)
try('GET')
try('DEL')
open()
stream()
return 1
""")
