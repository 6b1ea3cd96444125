"""What every script begins with, and the scripts' class."""

from __future__ import annotations

import hashlib
from typing import Final

FORMAT: Final = "1"  # of the keys above; any other is refused, never rewritten
LOADING: Final = "loading"  # the format of a log that is being imported (``load``)

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

local function place(now, newer_than)  -- the next id
  local ms, n = split(newer_than)
  if now > ms then return now, 0 end
  return following(ms, n)
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

local function key(name) return string.sub(META, 1, -5) .. name end

-- The first to come marks the log's creation. What a stream without its marker holds is kept and can be read; the
-- marker is newer than all of it. Nobody knows what was trimmed before, and everything is counted again.
local function create()
  local info, ms = stream(), clock()
  local known = newest(ARGV[1], info['last-generated-id'] or '0-0')
  ms = math.max(ms, split(known) + 1)
  local created = text(ms, 0)
  local trimmed, began, coarse = created, created, '0-0'
  if info.first ~= '' then
    trimmed = text(preceding(split(info.first)))
    began, coarse = '0-0', trimmed
  end
  local log = {created = created, last = created, oldest = info.first, trimmed = trimmed, lost = ''}
  redis.call('HSET', META, 'format', FORMAT, 'created', created, 'last', created,
    'oldest', info.first, 'trimmed', trimmed)
  redis.call('DEL', key('book'))
  redis.call('HSET', key('book'), 'own', trimmed, 'coarse', coarse, 'began', began)
  if redis.call('EXISTS', key('closed')) == 1 then
    log.closed = redis.call('HLEN', key('closed'))
    redis.call('HSET', META, 'closed', log.closed)
  end
  if redis.call('EXISTS', key('erased')) == 1 then
    redis.call('HSET', META, 'erase', created, 'erasing', '1')
  end
  return log
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
  local raw = redis.call('HMGET', META, 'format', 'created', 'last', 'oldest', 'trimmed', 'lost', 'closed')
  if not raw[1] then return create() end
  if raw[1] ~= FORMAT then
    if raw[1] == 'loading' then error('-RESTORING ' .. META .. ' is being filled by headwater log', 0) end
    error('-FORMAT ' .. META .. ' is of format ' .. raw[1] .. ', this program knows ' .. FORMAT, 0)
  end
  local log = {created = raw[2], last = raw[3], oldest = raw[4], trimmed = raw[5], lost = raw[6] or '',
    closed = raw[7]}
  -- Nobody sees an id before it is `last`, or a foreign writer's.
  if newest(log.last, ARGV[1]) ~= log.last then
    local top = stream()['last-generated-id'] or '0-0'
    if newest(ARGV[1], top) ~= top then mark(log, ARGV[1]) end
  end
  return log
end
"""

# What appending need not know, and what takes time to set up for each run of a script.
WHOLE: Final = """
local function open_all()
  local log = open()
  local raw = redis.call('HMGET', META, 'erase', 'erasing')
  log.erase, log.erasing = raw[1] or '0-0', raw[2]
  return log
end

-- Somebody else's XTRIM, XDEL or DEL: the stream begins later than META says, or has a hole that we have not made. META
-- itself is only corrected by the worker that trims (``settle``), which then tidies the indexes, too.
local function reconcile(log, info)
  local foreign = 0
  if log.oldest ~= info.first then
    if log.oldest ~= '' then
      local gone = info.first ~= '' and text(preceding(split(info.first))) or log.last
      log.trimmed = newest(log.trimmed, gone)
      foreign = 1
    end
    log.oldest = info.first
  end
  -- Redis 7 remembers the newest entry that XDEL removed.
  local hole = info['max-deleted-entry-id']
  if hole then
    local ours = newest(log.trimmed, log.erase)
    if newest(ours, hole) ~= ours then
      log.trimmed = hole
      foreign = 1
    end
  end
  return foreign
end
"""


class Script:
    """A script and its SHA-1, by which Redis knows it once it has run (EVALSHA).

    parts: of Lua, one after the other: functions that several scripts share, then the script itself.
    """

    __slots__ = ("sha", "source")

    def __init__(self, *parts: str) -> None:
        self.source = "".join((_HEAD, *parts))
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
