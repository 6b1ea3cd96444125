"""Looking up entries by their ids."""

from __future__ import annotations

from typing import Final

from .head import Script

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
