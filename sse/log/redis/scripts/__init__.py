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

from .append import APPEND
from .bounds import BOUNDS, JOIN
from .check import CHECK
from .fetch import FETCH
from .head import FORMAT, Script
from .trim import TRIM

__all__ = ["APPEND", "BOUNDS", "CHECK", "FETCH", "FORMAT", "JOIN", "TRIM", "Script"]
