"""The book: what each channel holds, counted by walking the stream once.

Publishers do not keep it. Whoever needs it (the worker that trims, once a second; a reader of patterns; a listing)
first counts what was appended since, in bites. So a publish costs what it did, events of older programs are counted as
well, and a log from before the book is counted when it is opened first.

The book is only ever behind: it knows every record up to ``counted``. The scripts that trim book what they remove.
When somebody else has trimmed (an older program, a hand), the count begins again, and the coarse mark is raised:
through there, something may be gone of any channel.
"""

from __future__ import annotations

from typing import Final

from .head import WHOLE, Script

# Functions that several scripts share. ``BOOK`` is a hash:
#   own       `trimmed` of META as this program left it: another value is an older program's, or a foreign trim
#   coarse    through here something is gone of channels that nobody knows
#   began     the position at which the log began, 0-0 if unknown
#   counted   through here the records are counted: records, bytes (their sum), ruled (records of channels with a rule)
#   rules     the retention rules by which ``ruled`` and the hash ``due`` were made: lines of
#             "<events or -1> <ms or -1> <ms in which the count trims nothing> <pattern>"
#   sorting   while the channels are sorted by new rules: the name reached, else absent or ''
#   swept     with rules: every record up to here has a rule, and is not looked at again by the trimming of the others
#   erased    erasures up to this marker are complete: no byte is left
#   trims     how often something was trimmed
#   holes     how many entries were deleted from the middle of the stream since it was rebuilt last
FUNCTIONS: Final = WHOLE + """
local ROOT = key('')
local BOOK, NAMES, SIZES, GONE = ROOT .. 'book', ROOT .. 'names', ROOT .. 'sizes', ROOT .. 'gone'
local IDLE, DUE, CLOSED, ERASED = ROOT .. 'idle', ROOT .. 'due', ROOT .. 'closed', ROOT .. 'erased'
local COPY, REBUILD, INDEX = ROOT .. 'copy', ROOT .. 'rebuild', ROOT .. 'ch:'
local KNOWN = 8  -- fields of an entry that has a type or a retry

local function read_book(log)
  local raw = redis.call('HMGET', BOOK, 'own', 'coarse', 'began', 'erased', 'counted', 'records', 'bytes', 'ruled',
    'rules', 'sorting', 'swept', 'holes')
  local book = {own = raw[1], coarse = raw[2] or '0-0', began = raw[3], erased = raw[4] or '0-0',
    counted = raw[5] or '0-0', records = tonumber(raw[6] or 0), bytes = tonumber(raw[7] or 0),
    ruled = tonumber(raw[8] or 0), rules = raw[9] or '', sorting = raw[10] or '', swept = raw[11] or '0-0',
    holes = tonumber(raw[12] or 0)}
  if book.own ~= log.trimmed and (book.own or log.trimmed ~= log.created) then book.coarse = log.trimmed end
  if not book.began then book.began = newest(log.trimmed, log.created) == log.trimmed and log.created or '0-0' end
  return book
end

-- Ids are compared as pairs, without making a string of either.
local function beyond(ams, an, bms, bn) return ams > bms or (ams == bms and an > bn) end

local function locate(packed)  -- the id of an index's member
  local high, low = struct.unpack('>I4I4', packed)
  return high * 4096 + math.floor(low / 1048576), low % 1048576
end

local function claimed(claim, me, ms)  -- one worker keeps the log at a time
  if redis.call('SET', claim, me, 'NX', 'PX', ms) then return true end
  if redis.call('GET', claim) ~= me then return false end
  redis.call('PEXPIRE', claim, ms)
  return true
end

-- Erased channels with the ids of their markers: records below these are gone for every reader, though their bytes may
-- still be there. nil if there are none.
local function erasures(log)
  if not log.erasing or log.erasing == '' then return nil end
  local raw, found = redis.call('HGETALL', ERASED), {}
  for i = 1, #raw, 2 do found[raw[i]] = {split(raw[i + 1])} end
  return found
end

local function is_erased(gone, channel, id)
  local marker = gone and gone[channel]
  if not marker then return false end
  local ms, n = split(id)
  return beyond(marker[1], marker[2], ms, n)
end

local function parse(lines)  -- the rules
  local rules = {}
  for events, ms, grace, pattern in string.gmatch(lines, '(%-?%d+) (%-?%d+) (%d+) ([^\\n]+)') do
    local rule = {name = pattern, grace = tonumber(grace)}
    if tonumber(events) >= 0 then rule.events = tonumber(events) end
    if tonumber(ms) >= 0 then rule.ms = tonumber(ms) end
    if string.sub(pattern, -1) == '*' then rule.prefix = string.sub(pattern, 1, -2) end
    rules[#rules + 1] = rule
  end
  local found = {}
  return function(channel)  -- the first that matches; no pattern matches a reserved channel
    local rule = found[channel]
    if rule == nil then
      rule = false
      for _, each in ipairs(rules) do
        local prefix = each.prefix
        if prefix and string.sub(channel, 1, 1) ~= '_' and string.sub(channel, 1, #prefix) == prefix
            or each.name == channel then
          rule = each
          break
        end
      end
      found[channel] = rule
    end
    return rule
  end
end

-- What a bite does for each of its channels is done for all of them in one call: a call costs Redis 1 to 2 us.

-- Channels' lines of the book: records, events among them (the others are markers), bytes of the events' data.
local function sizes_of(channels)
  local sizes = {}
  for i, raw in ipairs(#channels > 0 and redis.call('HMGET', SIZES, unpack(channels)) or {}) do
    local records, events, bytes = string.match(raw or '0 0 0', '(%d+) (%d+) (%d+)')
    sizes[i] = {tonumber(records), tonumber(events), tonumber(bytes)}
  end
  return sizes
end

local function size_of(channel) return unpack(sizes_of({channel})[1]) end

local function closed_of(log, channels)  -- for each of them its end marker's id, or false; nil if none is closed
  if #channels == 0 or not log.closed or log.closed == '0' then return nil end
  return redis.call('HMGET', CLOSED, unpack(channels))
end

local function is_closed(log, channel)
  local found = closed_of(log, {channel})
  return found and found[1]
end

local function call(command, key, arguments)
  if #arguments > 0 then redis.call(command, key, unpack(arguments)) end
end

local function push(list, ...)
  for _, value in ipairs({...}) do list[#list + 1] = value end
end

local function size_text(records, events, bytes)
  return string.format('%.0f %.0f %.0f', records, events, bytes)
end


-- When something of a channel is due by its rule: score of DUE, ms.
local function schedule(log, channel, rule, records)
  local first = redis.call('ZRANGE', INDEX .. channel, 0, 0)[1]
  local due
  if first then
    local ms = locate(first)
    if rule.ms then due = ms + rule.ms + 1 end
    if rule.events and records - (is_closed(log, channel) and 1 or 0) > rule.events then
      local settled = ms + rule.grace + 1
      due = math.min(due or settled, settled)
    end
  end
  if due then redis.call('ZADD', DUE, due, channel) else redis.call('ZREM', DUE, channel) end
end

local function is_marker(fields)
  local kind = fields[6]
  return #fields == KNOWN and (kind == 'stream-end' or kind == 'stream-reset' or kind == 'run')
end

-- What an entry is: its channel (nil for a foreign one), 1 for an event and 0 for a marker, bytes of data.
local function read_entry(fields)
  if fields[1] ~= 'c' or fields[3] ~= 'd' then return nil, 0, 0 end
  if is_marker(fields) then return fields[2], 0, 0 end
  return fields[2], 1, #fields[4]
end

-- Walk the stream from behind an id in small pages, so that large entries are not copied in vain: calls visit(id,
-- fields) until it returns true, or `size` bytes of data or `most` entries have passed. Returns true at the end of the
-- stream.
local function walk(after, most, size, visit)
  local want = 10
  while true do
    local page = redis.call('XRANGE', EVENTS, '(' .. after, '+', 'COUNT', math.min(want, most))
    for _, entry in ipairs(page) do
      local id, fields = entry[1], entry[2]
      if visit(id, fields) then return false end
      after, most, size = id, most - 1, size - #(fields[4] or '')
      if most <= 0 or size <= 0 then return false end
    end
    if #page < math.min(want, most + #page) then return true end
    local average = 1
    for _, entry in ipairs(page) do average = average + #(entry[2][4] or '') / #page end
    want = math.max(1, math.min(100, math.floor(size / average)))
  end
end

-- Sums of one bite. It ends with the hundredth channel, since each costs as much as several records.
local function new_sums() return {channels = {}, of = {}} end

local function has_room(sums, channel) return sums.of[channel] or #sums.channels < 100 end

local function add(sums, channel, event, bytes, id)
  local sum = sums.of[channel]
  if sum then
    sum[1], sum[2], sum[3], sum[4] = sum[1] + 1, sum[2] + event, sum[3] + bytes, id
  else
    sums.of[channel] = {1, event, bytes, id}
    sums.channels[#sums.channels + 1] = channel
  end
end

-- Book records that are removed.
local function take_off(log, book, sums)
  local channels = sums.channels
  local sizes, closed = sizes_of(channels), closed_of(log, channels)
  local marks, left, empty, idle, unnamed = {}, {}, {}, {}, {}
  for i, channel in ipairs(channels) do
    local sum, size = sums.of[channel], sizes[i]
    local ms, n = split(sum[4])
    redis.call('ZREMRANGEBYLEX', INDEX .. channel, '-', '[' .. member(ms, n))
    push(marks, channel, sum[4])
    if size[1] > sum[1] then
      push(left, channel, size_text(size[1] - sum[1], math.max(size[2] - sum[2], 0), math.max(size[3] - sum[3], 0)))
    else
      push(empty, channel)
      push(idle, ms, channel)
      if not (closed and closed[i]) then push(unnamed, channel) end
    end
    book.records = book.records - sum[1]
    book.bytes = book.bytes - sum[3]
  end
  call('HSET', GONE, marks)
  call('HSET', SIZES, left)
  call('HDEL', SIZES, empty)
  call('ZADD', IDLE, idle)
  call('ZREM', NAMES, unnamed)
end

local function write_book(book)
  redis.call('HSET', BOOK, 'counted', book.counted, 'records', string.format('%.0f', book.records),
    'bytes', string.format('%.0f', book.bytes), 'ruled', string.format('%.0f', book.ruled), 'swept', book.swept,
    'sorting', book.sorting, 'holes', string.format('%.0f', book.holes))
end
"""

COUNTING: Final = FUNCTIONS + """
-- After new rules: sort the channels by them. Until that is done, nothing is counted or trimmed.
local function sort(log, book, rule_of)
  local from = book.sorting == '-' and '-' or '(' .. book.sorting
  local names = redis.call('ZRANGEBYLEX', NAMES, from, '+', 'LIMIT', 0, 200)
  local sizes = sizes_of(names)
  for i, channel in ipairs(names) do
    local rule, records = rule_of(channel), sizes[i][1]
    if rule then
      book.ruled = book.ruled + records
      schedule(log, channel, rule, records)
    end
  end
  book.sorting = #names == 200 and names[200] or ''
end

-- Count a bite of what was appended. Returns true when the end is reached.
local function count(log, book, most, size)
  local rule_of = parse(book.rules)
  if book.sorting ~= '' then
    sort(log, book, rule_of)
    write_book(book)
    return false
  end
  local gone, sums, counted = erasures(log), new_sums(), book.counted
  local ended = walk(counted, most, size, function(id, fields)
    local channel, event, bytes = read_entry(fields)
    if channel and not has_room(sums, channel) then return true end
    if not (channel and is_erased(gone, channel, id)) then
      book.records = book.records + 1
      book.bytes = book.bytes + bytes
      if channel then add(sums, channel, event, bytes, id) end
    end
    counted = id
  end)
  if ended then counted = newest(counted, stream()['last-generated-id'] or '0-0') end
  if counted == book.counted then return ended end
  book.counted = counted
  local channels = sums.channels
  local sizes, lines, named, busy = sizes_of(channels), {}, {}, {}
  for i, channel in ipairs(channels) do
    local sum, size = sums.of[channel], sizes[i]
    if size[1] == 0 then
      push(named, 0, channel)
      push(busy, channel)
    end
    push(lines, channel, size_text(size[1] + sum[1], size[2] + sum[2], size[3] + sum[3]))
    local rule = rule_of(channel)
    if rule then
      book.ruled = book.ruled + sum[1]
      schedule(log, channel, rule, size[1] + sum[1])
    end
  end
  call('HSET', SIZES, lines)
  call('ZADD', NAMES, named)
  call('ZREM', IDLE, busy)
  write_book(book)
  return ended
end
"""

# KEYS: meta, events. ARGV: seen, most entries and bytes of one bite
# Returns {1 when the end is reached, counted}.
COUNT: Final = Script(
    COUNTING,
    """
local log = open_all()
local book = read_book(log)
local ended = count(log, book, tonumber(ARGV[2]), tonumber(ARGV[3]))
return {ended and 1 or 0, book.counted}
""",
)
