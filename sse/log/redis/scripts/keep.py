"""What the worker that keeps the log does first, once a second: it puts right what others did, and counts."""

from __future__ import annotations

from typing import Final

from .book import COUNTING
from .head import Script

# Functions of the worker that keeps the log.
_KEEPING: Final = """
-- Somebody else has trimmed, or the log is from before the book: count again from its beginning.
local function count_again(log, book)
  redis.call('UNLINK', SIZES, DUE)
  book.counted, book.records, book.bytes, book.ruled, book.swept, book.sorting = '0-0', 0, 0, 0, '0-0', ''
  book.own = log.trimmed
  redis.call('HSET', META, 'trimmed', log.trimmed, 'oldest', log.oldest)
  redis.call('HSET', BOOK, 'own', book.own, 'coarse', book.coarse, 'began', book.began)
end

-- Put right what others have done. Returns 1 if somebody who is not us has trimmed.
local function settle(log, book, info, lines)
  local before = log.trimmed
  local foreign = reconcile(log, info)
  local erasing = newest(book.erased, log.erase) ~= book.erased
  if foreign == 0 and not erasing and book.sorting == '' and book.counted == info['last-generated-id']
      and info.length ~= book.records then
    -- Records are gone from the middle, and nobody knows which.
    log.trimmed = newest(log.trimmed, book.counted)
    foreign = 1
  end
  if foreign == 1 then book.coarse = newest(book.coarse, log.trimmed) end
  if foreign == 1 or book.own ~= log.trimmed then
    count_again(log, book)
    write_book(book)
  end
  if book.rules ~= lines then
    book.rules, book.ruled, book.swept, book.sorting = lines, 0, '0-0', '-'
    redis.call('UNLINK', DUE)
    redis.call('HSET', BOOK, 'rules', lines)
    write_book(book)
  end
  return foreign
end

-- Forget what was trimmed of channels that have nothing left, if it is long ago or they are too many.
local function forget(book, now, most, age)
  local excess = redis.call('ZCARD', IDLE) - most
  local idle = redis.call('ZRANGE', IDLE, 0, 99, 'WITHSCORES')
  local coarse = book.coarse
  for i = 1, #idle, 2 do
    if excess <= 0 and tonumber(idle[i + 1]) >= now - age then break end
    if redis.call('EXISTS', INDEX .. idle[i]) == 0 then
      coarse = newest(coarse, redis.call('HGET', GONE, idle[i]) or '0-0')
      redis.call('HDEL', GONE, idle[i])
    else
      redis.call('ZADD', NAMES, 0, idle[i])
    end
    redis.call('ZREM', IDLE, idle[i])
    excess = excess - 1
  end
  if coarse ~= book.coarse then redis.call('HSET', BOOK, 'coarse', coarse) end
end

-- Readers look at ERASED after they have read: so each stays for a while after its bytes have gone.
local function drop_erasures(log, book, now)
  if not log.erasing or log.erasing == '' then return end
  local left = false
  for channel, marker in pairs(erasures(log)) do
    local id = text(marker[1], marker[2])
    if newest(book.erased, id) == book.erased and marker[1] < now - 10000 then
      redis.call('HDEL', ERASED, channel)
    else
      left = true
    end
  end
  if not left then redis.call('HSET', META, 'erasing', '') end
end
"""

# KEYS: meta, events, claim. ARGV: seen, most entries and bytes of one bite, this worker's token, how long its claim
#       holds (ms), the retention rules, channels to remember of those that have nothing left, and for how long (ms)
# Returns {0} if another worker keeps the log; else {1, 1 when the end is reached, the id below which every index is to
# be emptied, because somebody else has trimmed, or '', 1 if erasures are not complete and nobody works at them, or 2 if
# the stream has become mostly holes}.
KEEP: Final = Script(
    COUNTING,
    _KEEPING,
    """
if not claimed(KEYS[3], ARGV[4], ARGV[5]) then return {0} end
local log, info, now = open_all(), stream(), clock()
local book = read_book(log)
local foreign = settle(log, book, info, ARGV[6])
forget(book, now, tonumber(ARGV[7]), tonumber(ARGV[8]))
drop_erasures(log, book, now)
local ended = count(log, book, tonumber(ARGV[2]), tonumber(ARGV[3]))
local rebuild = 0
local at = redis.call('HGET', REBUILD, 'at')
if at or newest(book.erased, log.erase) ~= book.erased then
  if now - tonumber(at or 0) > 2000 then rebuild = 1 end
elseif book.holes > book.records then
  -- A node that is full holds 100 entries, or 4096 bytes.
  local full = book.records / 100 + (book.bytes + 30 * book.records) / 4096
  if (info['radix-tree-keys'] or 0) > 3 * full + 200 then rebuild = 2 end
end
local sweep = foreign == 0 and '' or info.first ~= '' and info.first or text(following(split(log.last)))
return {1, ended and 1 or 0, sweep, rebuild}
""",
)
