"""Comparing the stream with the indexes of its channels, a page at a time; nothing is changed."""

from __future__ import annotations

from typing import Final

from .book import FUNCTIONS
from .head import Script

# KEYS: meta, events. ARGV: seen, the id behind which the page begins, most entries
# Returns {number of entries, the last one's id, how many of them are not ours, then for each that its channel's index
# lacks: id, channel}.
ENTRIES: Final = Script(
    FUNCTIONS,
    """
local log = open_all()
local gone, foreign, last, missing = erasures(log), 0, ARGV[2], {}
local page = redis.call('XRANGE', EVENTS, '(' .. ARGV[2], '+', 'COUNT', ARGV[3])
for _, entry in ipairs(page) do
  local channel = read_entry(entry[2])
  last = entry[1]
  if not channel then
    foreign = foreign + 1
  elseif not is_erased(gone, channel, last) then
    local at = '[' .. member(split(last))
    if redis.call('ZLEXCOUNT', INDEX .. channel, at, at) == 0 then
      missing[#missing + 1] = last
      missing[#missing + 1] = channel
    end
  end
end
return {#page, last, foreign, unpack(missing)}
""",
)

# KEYS: meta, events. ARGV: seen, channel, where its members begin (as ZRANGEBYLEX has it), most of them
# Returns {number of members, the last of them, how many have no entry of this channel, records, events and bytes of
# those that were counted, what the book says of the channel or ''}.
MEMBERS: Final = Script(
    FUNCTIONS,
    """
local log = open_all()
local book, channel = read_book(log), ARGV[2]
local cms, cn = split(book.counted)
local members = redis.call('ZRANGEBYLEX', INDEX .. channel, ARGV[3], '+', 'LIMIT', 0, ARGV[4])
local dangling, records, events, size = 0, 0, 0, 0
for _, packed in ipairs(members) do
  local ms, n = locate(packed)
  local id = text(ms, n)
  local entry = redis.call('XRANGE', EVENTS, id, id)[1]
  if not entry or read_entry(entry[2]) ~= channel then
    dangling = dangling + 1
  elseif not beyond(ms, n, cms, cn) then
    local _, event, bytes = read_entry(entry[2])
    records, events, size = records + 1, events + event, size + bytes
  end
end
return {#members, members[#members] or '', dangling, records, events, size, redis.call('HGET', SIZES, channel) or ''}
""",
)
