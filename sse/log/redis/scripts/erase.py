"""Erasing a channel, so that no byte of it is left.

XDEL hides an entry, but its bytes stay in a node of the stream as long as that node holds any other entry: in memory,
in dumps and in the rewritten append-only file. So the stream is rebuilt:

1. ``ERASE`` is the moment of erasure. The channel's index goes, its marker is stored, and the hash ``erased`` says that
   older records of it are gone. Everybody who reads the stream itself leaves them out.
2. ``REBUILD`` copies what is left to a new stream, a bite each time, and deletes erased entries on its way. Everything
   goes on meanwhile: events are appended to the stream, beyond the bite, and what is trimmed goes from the copy, too.
   So up to the bite both hold the same. The bite that reaches the end exchanges the two. A follower that waits for the
   stream does not notice: it waits for the key, and the new stream's last id is that of the old one.

What is under way is in Redis, so any worker can make the next bite, several at once, after a failover, too. Erasures
that come meanwhile are complete with the next rebuild.
"""

from __future__ import annotations

from typing import Final

from .book import COUNTING, FUNCTIONS
from .head import Script

# KEYS: meta, events. ARGV: seen, most entries and bytes to count, channel, its marker's data before and behind its id
# Returns {"behind"} while more is to be counted first, or {"erased", events, id of the marker}.
ERASE: Final = Script(
    COUNTING,
    """
local channel = ARGV[4]
local log = open_all()
local book = read_book(log)
if not count(log, book, tonumber(ARGV[2]), tonumber(ARGV[3])) then return {'behind'} end
local records, events, bytes = size_of(channel)
local top = stream()['last-generated-id'] or '0-0'
local ms, n = place(clock(), newest(newest(log.last, ARGV[1]), top))
local id, index = text(ms, n), INDEX .. channel
redis.call('UNLINK', index)
redis.call('HDEL', SIZES, channel)
redis.call('ZREM', DUE, channel)
book.records, book.bytes = book.records - records, book.bytes - bytes
if parse(book.rules)(channel) then book.ruled = book.ruled - records end
write_book(book)
redis.call('HSET', ERASED, channel, id)
redis.call('ZADD', index, 0, member(ms, n))
redis.call('XADD', EVENTS, id, 'c', channel, 'd', ARGV[5] .. id .. ARGV[6], 'e', 'stream-reset', 'r', '')
redis.call('HSET', META, 'last', id, 'erase', id, 'erasing', '1')
if log.oldest == '' then redis.call('HSET', META, 'oldest', id) end
if redis.call('HDEL', CLOSED, channel) == 1 then redis.call('HSET', META, 'closed', redis.call('HLEN', CLOSED)) end
return {'erased', events, id}
""",
)

# KEYS: meta, events. ARGV: seen, most entries and bytes of one bite, 1 to begin even if nothing is to be erased
# Returns {"idle", erased} when there is nothing to do, {"more", erased}, or {"done", erased}. erased: erasures up to
# this marker are complete.
REBUILD: Final = Script(
    FUNCTIONS,
    """
local log = open_all()
local book = read_book(log)
local state = redis.call('HMGET', REBUILD, 'cursor', 'goal')
local cursor, goal = state[1], state[2]
if not cursor then
  goal, cursor = log.erase, '0-0'
  if newest(book.erased, goal) == book.erased and ARGV[4] ~= '1' then return {'idle', book.erased} end
  redis.call('UNLINK', COPY)
  redis.call('HSET', BOOK, 'holes', 0)
end
local info, gone, dead = stream(), erasures(log), {}

-- What was trimmed from the front since the last bite, by whomever.
if info.first == '' then
  redis.call('UNLINK', COPY)
else
  -- Only if need be: after its first write, a script is no longer refused by a Redis that is full.
  local first = redis.call('XRANGE', COPY, '-', '+', 'COUNT', 1)[1]
  if first and newest(first[1], info.first) ~= first[1] then redis.call('XTRIM', COPY, 'MINID', '=', info.first) end
end

local ended = walk(cursor, tonumber(ARGV[2]), tonumber(ARGV[3]), function(id, fields)
  if #fields > 7000 or is_erased(gone, fields[1] == 'c' and fields[2], id) then
    dead[#dead + 1] = id  -- erased; or not ours, and more than unpack can take
  else
    redis.call('XADD', COPY, id, unpack(fields))
  end
  cursor = id
end)
if #dead > 0 then
  redis.call('XDEL', EVENTS, unpack(dead))
  local first = redis.call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)[1]
  redis.call('HSET', META, 'oldest', first and first[1] or '')
end
if not ended then
  redis.call('HSET', REBUILD, 'cursor', cursor, 'goal', goal, 'at', clock())
  return {'more', book.erased}
end

info = stream()
if (info.length or 0) ~= redis.call('XLEN', COPY) then
  -- Somebody has deleted entries from the middle who does not know of the copy: they must not come back.
  redis.call('UNLINK', COPY)
  redis.call('HSET', REBUILD, 'cursor', '0-0', 'goal', goal, 'at', clock())
  return {'more', book.erased}
end
if info.length then
  if info.length == 0 then redis.call('XADD', COPY, 'MAXLEN', 0, '0-1', 'c', '') end
  redis.call('XSETID', COPY, info['last-generated-id'])
  local old = ROOT .. 'old'
  redis.call('UNLINK', old)
  redis.call('RENAME', EVENTS, old)
  redis.call('RENAME', COPY, EVENTS)
  redis.call('UNLINK', old)
end
book.erased = newest(book.erased, goal)
redis.call('HSET', BOOK, 'erased', book.erased)
redis.call('DEL', REBUILD)
return {'done', book.erased}
""",
)
