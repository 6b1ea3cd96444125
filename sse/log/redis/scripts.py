"""The Lua scripts of the Redis log: everything that must be atomic.

A log's keys, for the prefix ``headwater``; the braces are a hash tag, which keeps all keys in one slot:

    {headwater}:events        stream; an entry's fields are c (channel), d (data) and, when the event has a type or
                              a retry, e and r as well (an empty one stands for none). In the first entry of a
                              publish whose trace is sampled r is named ``r <traceparent> <number of events>``:
                              programs that know no traces do not look at that name, and read the entry as before
    {headwater}:ch:<channel>  sorted set, the channel's index: the positions of its events as 8 bytes, big endian,
                              all with score 0, so that byte order is log order
    {headwater}:meta          hash: format, created (the creation marker), last (id given out last), oldest (id of
                              the stream's first entry, empty for none), trimmed (removed through this id), and
                              once Redis has lost events (see ``follow``) lost: above all ids given out by then
    {headwater}:key:<hash>    the answer to an idempotency key; expires
    {headwater}:trim          which worker trims; expires

Rules that every script keeps:

- An id is chosen here, from the server's clock and ``last``, never by ``*``: when the clock steps back Redis would
  count up the sequence within the last millisecond, and a position has room for 2**20 in one.
- ``ARGV[1]`` is the newest id that the calling worker has seen. New ids lie above it, whatever the clock of a
  replacement server or a promoted replica says: clients hold cursors up to there.
- Indexes are written before the stream. A script that fails half-way (a foreign key in the way) has then left
  entries in an index that nobody can follow to anything, and no event; the next trim removes them.
- Lua's numbers are doubles, exact to 2**53, and positions have 61 bits: so ids are pairs (ms, n) in here.
- All writes are replicated and logged by their effects, as one transaction (the default since Redis 5).
"""

from __future__ import annotations

import hashlib
from typing import Final

FORMAT: Final = "1"  # of the keys above; any other is refused, never rewritten

_HEAD: Final = f"local FORMAT = '{FORMAT}'\n" + """
local META, EVENTS = KEYS[1], KEYS[2]
local MOST = 1048575  -- the largest n, 2^20 - 1

local function split(id)
  local ms, n = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(n)
end

local function text(ms, n)
  return string.format('%d-%d', ms, n)
end

local function following(ms, n)
  if n >= MOST then return ms + 1, 0 end
  return ms, n + 1
end

local function preceding(ms, n)
  if n == 0 then return ms - 1, MOST end
  return ms, math.min(n, MOST + 1) - 1
end

local function newest(a, b)
  if a == b then return a end
  local ams, an = split(a)
  local bms, bn = split(b)
  if ams > bms or (ams == bms and an > bn) then return a end
  return b
end

local function member(ms, n)  -- the position, ms * 2^20 + n, in two halves
  return struct.pack('>I4I4', math.floor(ms / 4096), (ms % 4096) * 1048576 + math.min(n, MOST))
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function stream()  -- XINFO as a table; empty when there is no stream
  local info = {}
  if redis.call('EXISTS', EVENTS) == 1 then
    local raw = redis.call('XINFO', 'STREAM', EVENTS)
    for i = 1, #raw, 2 do info[raw[i]] = raw[i + 1] end
  end
  local first = info['first-entry']
  info.first = first and first[1] or ''
  return info
end

-- The first to come marks the log's creation. What a stream without its marker holds is kept and can be read; the
-- marker is newer than all of it.
local function create()
  local info, ms = stream(), clock()
  local known = newest(ARGV[1], info['last-generated-id'] or '0-0')
  ms = math.max(ms, split(known) + 1)
  local created = text(ms, 0)
  local trimmed = created
  if info.first ~= '' then trimmed = text(preceding(split(info.first))) end
  redis.call('HSET', META, 'format', FORMAT, 'created', created, 'last', created,
    'oldest', info.first, 'trimmed', trimmed)
  return {created = created, last = created, oldest = info.first, trimmed = trimmed, lost = ''}
end

-- Events are gone that a worker had stored or read. Who was given which id since, by whom, cannot be known any more: so
-- the mark lies above all of them, new ids lie above the mark, and each cursor below it is told.
local function mark(log, known)
  known = newest(known, stream()['last-generated-id'] or '0-0')
  log.lost = text(following(split(newest(log.last, known))))
  log.last = log.lost
  redis.call('HSET', META, 'lost', log.lost, 'last', log.last)
end

local function open()
  local raw = redis.call('HMGET', META, 'format', 'created', 'last', 'oldest', 'trimmed', 'lost')
  if not raw[1] then return create() end
  if raw[1] ~= FORMAT then
    error('-FORMAT ' .. META .. ' is of format ' .. raw[1] .. ', this program knows ' .. FORMAT, 0)
  end
  local log = {created = raw[2], last = raw[3], oldest = raw[4], trimmed = raw[5], lost = raw[6] or ''}
  -- Nobody sees an id before it is `last`, or a foreign writer's.
  if newest(log.last, ARGV[1]) ~= log.last then
    local top = stream()['last-generated-id'] or '0-0'
    if newest(ARGV[1], top) ~= top then mark(log, ARGV[1]) end
  end
  return log
end

-- Somebody else's XTRIM, XDEL or DEL: the stream begins later than the log's book says. The book itself is only
-- corrected by the script that trims, whose worker then tidies the indexes, too.
local function reconcile(log, info)
  if log.oldest == info.first then return 0 end
  local foreign = 0
  if log.oldest ~= '' then
    local gone = info.first ~= '' and text(preceding(split(info.first))) or log.last
    log.trimmed = newest(log.trimmed, gone)
    foreign = 1
  end
  log.oldest = info.first
  return foreign
end
"""


class Script:
    """A script and its SHA-1, by which Redis knows it once it has run (EVALSHA)."""

    __slots__ = ("sha", "source")

    def __init__(self, body: str) -> None:
        self.source = _HEAD + body
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


# KEYS: meta, events, [the idempotency key,] an index for each channel of the batch
# ARGV: seen, deadline (server ms, 0 for none), lifetime (ms) and digest of the idempotency key ('' for no key),
#       the number of channels, their names in the order of KEYS, then for each event: number of its channel, data,
#       event, retry; and, if they have one, their traceparent
# Returns {"stored"|"known", server ms, first id, count}, {"late", server ms} or {"conflict", server ms}.
APPEND: Final = Script("""
local now = clock()
local deadline, lifetime, digest, channels = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
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

local function place(newer_than)
  local ms, n = split(newer_than)
  if now > ms then return now, 0 end
  return following(ms, n)
end

local first = 6 + channels
local traced = (#ARGV - first + 1) % 4
local final = #ARGV - traced
local count = (final - first + 1) / 4
local begin, last

local function store(ms, n)
  begin = text(ms, n)
  local ids, index = {}, {}
  for i = first, final, 4 do
    local key = KEYS[known + ARGV[i]]
    local entries = index[key]
    if not entries then entries = {}; index[key] = entries end
    entries[#entries + 1] = 0
    entries[#entries + 1] = member(ms, n)
    ids[#ids + 1] = text(ms, n)
    ms, n = following(ms, n)
  end
  last = ids[#ids]
  for key, entries in pairs(index) do
    for i = 1, #entries, 1000 do  -- unpack is limited by Lua's stack of 8000
      redis.call('ZADD', key, unpack(entries, i, math.min(i + 999, #entries)))
    end
  end
  for k = 1, #ids do
    local i = first + (k - 1) * 4
    local channel, data, event, retry = ARGV[5 + ARGV[i]], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
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
  end
end

local failed = store(place(newest(log.last, ARGV[1])))
if failed and string.find(failed.err, 'equal or smaller', 1, true) then
  -- Somebody else wrote to the stream, or its first writer found it without a marker.
  failed = store(place(newest(log.last, stream()['last-generated-id'])))
end
if failed then return failed end
redis.call('HSET', META, 'last', last)
if log.oldest == '' then redis.call('HSET', META, 'oldest', begin) end
if lifetime ~= '' then redis.call('SET', KEYS[3], digest .. ' ' .. begin .. ' ' .. count, 'PX', lifetime) end
return {'stored', now, begin, count}
""")

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

# KEYS: meta, events. ARGV: seen, bytes of data that end the page (with the entry that reaches them), ids
# Returns {how many of the ids were looked at, entries}. Trimmed ones are left out.
FETCH: Final = Script("""
local left, entries = tonumber(ARGV[2]), {}
for i = 3, #ARGV do
  local found = redis.call('XRANGE', EVENTS, ARGV[i], ARGV[i])[1]
  if found then
    entries[#entries + 1] = found
    left = left - #(found[2][4] or '')
    if left <= 0 then return {i - 2, entries} end
  end
end
return {#ARGV - 2, entries}
""")

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
