"""Trimming by retention: of channels with a rule, each by itself; of all others together, the oldest first.

Neither looks for what is due by scanning. ``PRUNE`` takes the channels that are due from a sorted set, and their oldest
records from their indexes. ``TRIM`` begins at the front of the stream or, where rules keep some of it, behind what it
has passed over before.
"""

from __future__ import annotations

from typing import Final

from .book import FUNCTIONS
from .head import Script

_TRIMMING: Final = """
-- Open the log for trimming; nil if another worker keeps it, or if somebody else has trimmed: then ``KEEP`` has to put
-- the book right first. What is not counted yet is not trimmed.
local function begin()
  if not claimed(KEYS[3], ARGV[2], ARGV[3]) then return nil end
  local log, info = open_all(), stream()
  local book = read_book(log)
  if book.own ~= log.trimmed or log.oldest ~= info.first or book.sorting ~= '' then return nil end
  return log, book, info
end

-- Delete entries from the middle; from a copy, too, which would otherwise begin again. (What is trimmed from the front
-- the next bite of a rebuild sees.)
local function delete(book, ids)
  book.holes = book.holes + #ids
  local copying = redis.call('EXISTS', COPY) == 1
  for i = 1, #ids, 1000 do  -- unpack is limited by Lua's stack of 8000
    local last = math.min(i + 999, #ids)
    redis.call('XDEL', EVENTS, unpack(ids, i, last))
    if copying then redis.call('XDEL', COPY, unpack(ids, i, last)) end
  end
end

local function finish(log, book, newest_gone)
  local page = redis.call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)
  log.trimmed = newest(log.trimmed, newest_gone)
  redis.call('HSET', META, 'trimmed', log.trimmed, 'oldest', page[1] and page[1][1] or '')
  redis.call('HSET', BOOK, 'own', log.trimmed)
  redis.call('HINCRBY', BOOK, 'trims', 1)
  write_book(book)
end
"""

# KEYS: meta, events, claim. ARGV: seen, this worker's token, how long its claim holds (ms), most records and bytes of
#       one bite (bytes are counted after the fact)
# Returns how many records were removed.
PRUNE: Final = Script(
    FUNCTIONS,
    _TRIMMING,
    """
local log, book = begin()
if not log then return 0 end
local most, size, now = tonumber(ARGV[4]), tonumber(ARGV[5]), clock()
local rule_of, through = parse(book.rules), {split(book.counted)}
local removed, gone = 0, '0-0'
for _, channel in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 40)) do
  local rule = rule_of(channel)
  local records, ids, sums = size_of(channel), {}, new_sums()
  local surplus = rule and rule.events and records - (is_closed(log, channel) and 1 or 0) - rule.events or 0
  local members = rule and redis.call('ZRANGE', INDEX .. channel, 0, most - removed - 1) or {}
  for k, each in ipairs(members) do
    local ms, n = locate(each)
    local old = rule.ms and ms < now - rule.ms
    if not (old or (k <= surplus and ms < now - rule.grace)) or beyond(ms, n, through[1], through[2]) then break end
    local id = text(ms, n)
    local entry = redis.call('XRANGE', EVENTS, id, id)[1]
    ids[#ids + 1] = id
    if entry then
      local _, event, bytes = read_entry(entry[2])
      add(sums, channel, event, bytes, id)
      size = size - #(entry[2][4] or '')
      if size <= 0 then break end
    end
  end
  if #ids > 0 then
    delete(book, ids)
    local sum = sums.of[channel]
    if sum then
      gone = newest(gone, ids[#ids])
      removed, records = removed + sum[1], records - sum[1]
      book.ruled = book.ruled - sum[1]
      take_off(log, book, sums)
    else
      redis.call('ZREMRANGEBYLEX', INDEX .. channel, '-', '[' .. member(split(ids[#ids])))
    end
  end
  if rule then schedule(log, channel, rule, records) else redis.call('ZREM', DUE, channel) end
  if removed >= most or size <= 0 then break end
end
if removed > 0 then finish(log, book, gone) end
return removed
""",
)

# KEYS: meta, events, claim. ARGV: seen, this worker's token, how long its claim holds (ms), most records and bytes of
#       one bite (bytes are counted after the fact), records to retain, ms to retain
# Returns {records removed, 1 if there may be more although nothing was removed}.
TRIM: Final = Script(
    FUNCTIONS,
    _TRIMMING,
    """
local log, book, info = begin()
if not log then return {0, 0} end
local most, size = tonumber(ARGV[4]), tonumber(ARGV[5])
local excess = math.min(book.records, info.length or 0) - book.ruled - tonumber(ARGV[6])
local before, ruled = clock() - tonumber(ARGV[7]), book.rules ~= ''
if not ruled and (info.first == '' or (excess <= 0 and split(info.first) >= before)) then return {0, 0} end
local rule_of, erased, through = parse(book.rules), erasures(log), {split(book.counted)}
local removed, ids, sums = 0, {}, new_sums()
local last, gone, ended = '0-0', '0-0', false
local all = walk(ruled and book.swept or '0-0', 1000, size, function(id, fields)
  local ms, n = split(id)
  local channel, event, bytes = read_entry(fields)
  if beyond(ms, n, through[1], through[2]) then ended = true; return true end
  if not (channel and (is_erased(erased, channel, id) or ruled and rule_of(channel))) then
    ended = removed >= most or (removed >= excess and ms >= before)
    if ended or (channel and not has_room(sums, channel)) then return true end
    removed = removed + 1
    ids[removed], gone = id, id
    if channel then add(sums, channel, event, bytes, id) else book.records = book.records - 1 end
  end
  last = id
end)
if removed > 0 then
  take_off(log, book, sums)
  if ruled then
    delete(book, ids)
  else
    local ms, n = split(last)
    redis.call('XTRIM', EVENTS, 'MINID', '=', string.format('%.0f-%.0f', ms, n + 1))
  end
end
if ruled and last ~= '0-0' then book.swept = last end
if removed > 0 then finish(log, book, gone) elseif ruled then write_book(book) end
return {removed, (all or ended) and 0 or 1}
""",
)
