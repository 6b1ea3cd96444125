"""Trimming by retention."""

from __future__ import annotations

from typing import Final

from .head import Script

# KEYS: meta, events, claim. ARGV: seen, this worker's token, how long the claim holds (ms), events to retain, ms to
#       retain, most entries and bytes of one bite (bytes are counted after the fact), prefix of the index keys
# Returns {entries removed, 1 if somebody else had trimmed, trimmed}.
TRIM: Final = Script("""
local me = ARGV[2]
if not redis.call('SET', KEYS[3], me, 'NX', 'PX', ARGV[3]) then
  if redis.call('GET', KEYS[3]) ~= me then return {0, 0, ''} end
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
local keep, age, most, bytes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local log, info = open(), stream()
local foreign = reconcile(log, info)
if foreign == 1 then redis.call('HSET', META, 'oldest', log.oldest, 'trimmed', log.trimmed) end
local excess, before = (info.length or 0) - keep, clock() - age
local first = info.first
if first == '' or (excess <= 0 and split(first) >= before) then return {0, foreign, log.trimmed} end
local removed, through = 0, {}
local gone
while first ~= '' and removed < most and bytes > 0 do
  local page = redis.call('XRANGE', EVENTS, gone and '(' .. gone or '-', '+', 'COUNT', 100)
  if #page == 0 then first = '' end
  for _, entry in ipairs(page) do
    local ms, n = split(entry[1])
    first = entry[1]
    if removed >= most or bytes <= 0 or (removed >= excess and ms >= before) then
      bytes = 0
      break
    end
    local fields = entry[2]
    if fields[1] == 'c' then through[fields[2]] = member(ms, n) end
    bytes = bytes - #(fields[4] or '')
    removed = removed + 1
    gone = first
  end
end
if removed == 0 then return {0, foreign, log.trimmed} end
for channel, upto in pairs(through) do
  redis.call('ZREMRANGEBYLEX', ARGV[8] .. channel, '-', '[' .. upto)
end
local ms, n = split(gone)
redis.call('XTRIM', EVENTS, 'MINID', '=', string.format('%.0f-%.0f', ms, n + 1))
local page = redis.call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)
log.trimmed = newest(log.trimmed, gone)
redis.call('HSET', META, 'trimmed', log.trimmed, 'oldest', page[1] and page[1][1] or '')
return {removed, foreign, log.trimmed}
""")
