"""Importing: a log is filled with records whose ids are given.

``META`` then has another format (``LOADING``), so that no other script reads or writes, nor one of an older program. It
has ``loading`` (a token of the process that loads), ``last`` (the id loaded last) and ``was`` (the newest id of the log
that was there). An interrupted import stays so until another one has begun again from the start.
"""

from __future__ import annotations

from typing import Final

from .head import LOADING, Script

_STATE: Final = f"local LOADING = '{LOADING}'\n" + """
-- Does this process load? Another one may have begun since.
local function mine(token)
  local raw = redis.call('HMGET', META, 'format', 'loading')
  return raw[1] == LOADING and raw[2] == token
end
"""

# KEYS: meta, events, claim, closed. ARGV: seen, token ('' to look only), 1 to begin even if the log is in use or holds
#       something
# Returns {"used"}, {"full", number of records, newest id}, {"other", format}, or {"free"}: the caller then removes all
# keys but META and the notes.
BEGIN: Final = Script(
    _STATE,
    """
local raw, info = redis.call('HMGET', META, 'format', 'created', 'last', 'trimmed', 'lost', 'was'), stream()
local ours = raw[1] == FORMAT
local last = newest(ours and raw[3] or raw[6] or '0-0', info['last-generated-id'] or '0-0')
if raw[1] ~= LOADING and ARGV[3] ~= '1' then
  if redis.call('EXISTS', KEYS[3]) == 1 then return {'used'} end
  if raw[1] and not ours then return {'other', raw[1]} end
  local held = (info.length or 0) > 0 or (info['last-generated-id'] or '0-0') ~= '0-0'
  if held or (ours and raw[4] ~= raw[2]) or redis.call('EXISTS', KEYS[4]) == 1 then
    return {'full', info.length or 0, last}
  end
end
if ARGV[2] ~= '' then
  redis.call('DEL', META)
  redis.call('HSET', META, 'format', LOADING, 'loading', ARGV[2], 'last', '0-0', 'was', last)
end
return {'free'}
""",
)

# KEYS: meta, events, an index for each channel. ARGV: seen, token, number of channels, their names in the order of
#       KEYS, then for each record: number of its channel, id, data, event, retry
# Returns 1, or 0 if another process has begun since.
LOAD: Final = Script(
    _STATE,
    """
if not mine(ARGV[2]) then return 0 end
local channels = tonumber(ARGV[3])
local last
for i = 4 + channels, #ARGV, 5 do
  local channel, id, data, event, retry = ARGV[3 + ARGV[i]], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  redis.call('ZADD', KEYS[2 + ARGV[i]], 0, member(split(id)))
  if event == '' and retry == '' then
    redis.call('XADD', EVENTS, id, 'c', channel, 'd', data)
  else
    redis.call('XADD', EVENTS, id, 'c', channel, 'd', data, 'e', event, 'r', retry)
  end
  last = id
end
if last then redis.call('HSET', META, 'last', last) end
return 1
""",
)

# KEYS: meta, events, closed, names. ARGV: seen, token, channels and their closing ids in turn
# Returns 1, or 0 if another process has begun since.
LOAD_CLOSED: Final = Script(
    _STATE,
    """
if not mine(ARGV[2]) then return 0 end
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[4], 0, ARGV[i])  -- one without records would not be counted
end
return 1
""",
)

# KEYS: meta, events, closed, the index of the channel. ARGV: seen, token, channel, the id below which its records are
#       removed, how many at most
# Returns how many were removed, or -1 if another process has begun since. (The bytes go when the log is kept.)
LOAD_ERASE: Final = Script(
    _STATE,
    """
if not mine(ARGV[2]) then return -1 end
local channel, ms, n = ARGV[3], split(ARGV[4])
local found = redis.call('ZRANGEBYLEX', KEYS[4], '-', '(' .. member(ms, n), 'LIMIT', 0, ARGV[5])
for _, packed in ipairs(found) do
  local high, low = struct.unpack('>I4I4', packed)
  redis.call('XDEL', EVENTS, text(high * 4096 + math.floor(low / 1048576), low % 1048576))
  redis.call('ZREM', KEYS[4], packed)
end
if #found > 0 then redis.call('HSET', META, 'erased', '1') end
local closed = redis.call('HGET', KEYS[3], channel)
if closed and newest(closed, ARGV[4]) ~= closed then redis.call('HDEL', KEYS[3], channel) end
return #found
""",
)

# KEYS: meta, events, claim, closed. ARGV: seen, token, began, gone, lost, 1 to mark the log as one that has lost its
#       end, 1 even if the log is in use, the receipt
# Returns {"done"}, {"used"}, or {"other"} if another process has begun since.
LOAD_END: Final = Script(
    _STATE,
    """
if not mine(ARGV[2]) then return {'other'} end
if ARGV[7] ~= '1' and redis.call('EXISTS', KEYS[3]) == 1 then return {'used'} end
local raw, info = redis.call('HMGET', META, 'last', 'was', 'erased'), stream()
local began, gone, lost = ARGV[3], ARGV[4], ARGV[5]
local last = newest(newest(raw[1], lost), newest(began, gone))
if ARGV[6] == '1' then
  lost = text(place(clock(), newest(last, raw[2])))
  last = lost
end
local created = text(math.max(clock(), split(newest(last, raw[2])) + 1), 0)
local trimmed = gone ~= '0-0' and gone or began
redis.call('DEL', META, key('book'))
redis.call('HSET', key('book'), 'own', trimmed, 'coarse', gone, 'began', began)
redis.call('HSET', META, 'format', FORMAT, 'created', created, 'last', last, 'oldest', info.first, 'trimmed', trimmed,
  'imported', ARGV[8])
if lost ~= '0-0' then redis.call('HSET', META, 'lost', lost) end
if raw[3] then redis.call('HSET', META, 'erase', last) end
local closed = redis.call('HLEN', KEYS[4])
if closed > 0 then redis.call('HSET', META, 'closed', closed) end
return {'done'}
""",
)
