"""Storing events."""

from __future__ import annotations

from typing import Final

from .head import Script

# KEYS: meta, events, [the idempotency key,] an index for each channel of the batch
# ARGV: seen, deadline (server ms, 0 for none), lifetime (ms) and digest of the idempotency key ('' for no key),
#       how many of the last events are end markers, which close their channels,
#       the number of channels, their names in the order of KEYS, then for each event: number of its channel, data,
#       event, retry; and, if they have one, their traceparent
# Returns {"stored"|"known", server ms, first id, count}, {"late", server ms}, {"conflict", server ms} or
# {"closed", server ms, channel}.
APPEND: Final = Script("""
local now = clock()
local deadline, lifetime, digest = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local ends, channels = tonumber(ARGV[5]), tonumber(ARGV[6])
if deadline > 0 and now > deadline then return {'late', now} end
local log = open()
local known = 2
if lifetime ~= '' then
  known = 3
  local answer = redis.call('GET', KEYS[3])
  if answer then
    local was, id, count = string.match(answer, '^(%x*) (%S+) (%d+)$')
    if was ~= digest then return {'conflict', now} end
    -- A write, so that WAIT waits for all that came before it, the events included: without one Valkey returns at once.
    redis.call('PEXPIRE', KEYS[3], lifetime)
    return {'known', now, id, tonumber(count)}
  end
end

local CLOSED = (ends > 0 or (log.closed and log.closed ~= '0')) and key('closed')
if CLOSED then
  for i = 7, 6 + channels, 1000 do  -- unpack is limited by Lua's stack of 8000
    local found = redis.call('HMGET', CLOSED, unpack(ARGV, i, math.min(i + 999, 6 + channels)))
    for k = 1, #found do
      if found[k] then return {'closed', now, ARGV[i + k - 1]} end
    end
  end
end

local first = 7 + channels
local traced = (#ARGV - first + 1) % 4
local final = #ARGV - traced
local count = (final - first + 1) / 4
local begin, last

local function store(ms, n)
  begin = text(ms, n)
  local ids, index = {}, {}
  for i = first, final, 4 do
    local name = KEYS[known + ARGV[i]]
    local entries = index[name]
    if not entries then entries = {}; index[name] = entries end
    entries[#entries + 1] = 0
    entries[#entries + 1] = member(ms, n)
    ids[#ids + 1] = text(ms, n)
    ms, n = following(ms, n)
  end
  last = ids[#ids]
  for name, entries in pairs(index) do
    for i = 1, #entries, 1000 do
      redis.call('ZADD', name, unpack(entries, i, math.min(i + 999, #entries)))
    end
  end
  for k = 1, #ids do
    local i = first + (k - 1) * 4
    local channel, data, event, retry = ARGV[6 + ARGV[i]], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local added
    if traced == 1 and k == 1 then
      local mark = string.format('r %s %.0f', ARGV[#ARGV], count)
      added = redis.pcall('XADD', EVENTS, ids[k], 'c', channel, 'd', data, 'e', event, mark, retry)
    elseif event == '' and retry == '' then
      added = redis.pcall('XADD', EVENTS, ids[k], 'c', channel, 'd', data)
    else
      added = redis.pcall('XADD', EVENTS, ids[k], 'c', channel, 'd', data, 'e', event, 'r', retry)
    end
    if type(added) == 'table' and added.err then return added end
    if k > #ids - ends then redis.call('HSET', CLOSED, channel, ids[k]) end
  end
end

local failed = store(place(now, newest(log.last, ARGV[1])))
if failed and string.find(failed.err, 'equal or smaller', 1, true) then
  -- Somebody else wrote to the stream, or its first writer found it without a marker.
  failed = store(place(now, newest(log.last, stream()['last-generated-id'])))
end
if failed then return failed end
redis.call('HSET', META, 'last', last)
if ends > 0 then redis.call('HSET', META, 'closed', redis.call('HLEN', CLOSED)) end
if log.oldest == '' then redis.call('HSET', META, 'oldest', begin) end
if lifetime ~= '' then redis.call('SET', KEYS[3], digest .. ' ' .. begin .. ' ' .. count, 'PX', lifetime) end
return {'stored', now, begin, count}
""")
