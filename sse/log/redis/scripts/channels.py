"""Which channels there are, and what was trimmed of them."""

from __future__ import annotations

from typing import Final

from .book import FUNCTIONS
from .head import Script

# KEYS: meta, events. ARGV: seen, where the names begin and end (as ZRANGEBYLEX has it), how many
# Returns {how many names were looked at, the last of them, then for each channel: name, events, bytes, ids of its
# oldest and newest event or '', 1 if it is closed}.
LIST: Final = Script(
    FUNCTIONS,
    """
-- The outermost event of a channel that has markers, too.
local function find(index, command)
  local from = 0
  while true do
    local members = redis.call(command, index, from, from + 9)
    for _, each in ipairs(members) do
      local id = text(locate(each))
      local found = redis.call('XRANGE', EVENTS, id, id)[1]
      if found and not is_marker(found[2]) then return id end
    end
    if #members < 10 then return '' end
    from = from + 10
  end
end

local log = open_all()
local names = redis.call('ZRANGEBYLEX', NAMES, ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local sizes, ended = sizes_of(names), closed_of(log, names)
local answer = {#names, names[#names] or ''}
for i, channel in ipairs(names) do
  local records, events, bytes = unpack(sizes[i])
  local closed = ended and ended[i]
  if string.sub(channel, 1, 1) ~= '_' and (events > 0 or closed) then
    local index, oldest, newest = INDEX .. channel, '', ''
    if events > 0 and records == events then
      local first = redis.call('ZRANGE', index, 0, 0)[1]
      local last = events == 1 and first or redis.call('ZRANGE', index, -1, -1)[1]
      oldest, newest = first and text(locate(first)) or '', last and text(locate(last)) or ''
    elseif events > 0 then
      oldest, newest = find(index, 'ZRANGE'), find(index, 'ZREVRANGE')
    end
    push(answer, channel, events, bytes, oldest, newest, closed and 1 or 0)
  elseif records == 0 and not closed and redis.call('EXISTS', INDEX .. channel) == 0 then
    redis.call('ZREM', NAMES, channel)  -- left over from a count before the last one
    local mark = redis.call('HGET', GONE, channel)
    if mark then redis.call('ZADD', IDLE, split(mark), channel) end
  end
end
return answer
""",
)

# KEYS: meta, events. ARGV: seen, names of channels
# Returns {coarse, how often was trimmed, then for each channel the id through which it was trimmed, or ''}.
GONE: Final = Script(
    FUNCTIONS,
    """
local log, info = open_all(), stream()
reconcile(log, info)
local book = read_book(log)
local answer = {book.coarse, tonumber(redis.call('HGET', BOOK, 'trims') or 0)}
if #ARGV > 1 then
  for i, id in ipairs(redis.call('HMGET', GONE, unpack(ARGV, 2))) do answer[i + 2] = id or '' end
end
return answer
""",
)
