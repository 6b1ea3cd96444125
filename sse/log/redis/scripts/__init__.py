"""The Lua scripts of the Redis log: everything that must be atomic.

A log's keys, for the prefix ``headwater``; the braces are a hash tag, which keeps all keys in one slot:

    {headwater}:events        stream; an entry's fields are c (channel), d (data) and, when the event has a type or
                              a retry, e and r as well (an empty one stands for none). In the first entry of a
                              publish whose trace is sampled r is named ``r <traceparent> <number of events>``:
                              programs that know no traces do not look at that name, and read the entry as before
    {headwater}:ch:<channel>  sorted set, the channel's index: the positions of its records as 8 bytes, big endian,
                              all with score 0, so that byte order is log order
    {headwater}:meta          hash: format, created (the creation marker), last (id given out last), oldest (id of
                              the stream's first entry, empty for none), trimmed (removed through this id); once
                              Redis has lost events (see ``follow``) lost: above all ids given out by then; once
                              there are any, closed: the number of closed channels, erase: id of the newest
                              erasure's marker, erasing: not empty while the hash ``erased`` is not
    {headwater}:key:<hash>    the answer to an idempotency key; expires
    {headwater}:trim          which worker keeps the log (trims it, counts it); expires
    {headwater}:closed        hash: closed channels, and the ids of their end markers
    {headwater}:note:<kind>   hash: notes of one kind; expires with the last of them

and what the log knows of its channels. None of it is a publisher's work (``book``):

    {headwater}:book          hash: how far and what was counted
    {headwater}:names         sorted set, all scores 0: the channels that have records or are closed
    {headwater}:sizes         hash: of each channel that has records ``<records> <events> <bytes>``
    {headwater}:gone          hash: of each channel the id through which it was trimmed
    {headwater}:idle          sorted set: channels of ``gone`` that have no records, by the time of that id (ms)
    {headwater}:due           sorted set: channels that a retention rule is for, by the time when something is due (ms)
    {headwater}:erased        hash: channels that were erased in the last 10 s, and the ids of their markers
    {headwater}:rebuild       hash, while the stream is rebuilt: how far (``erase``)
    {headwater}:copy          stream, while the stream is rebuilt: what it will be

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
from .book import COUNT
from .bounds import BOUNDS, JOIN
from .channels import GONE, LIST
from .check import CHECK
from .erase import ERASE, REBUILD
from .fetch import FETCH
from .head import FORMAT, Script
from .keep import KEEP
from .load import BEGIN, LOAD, LOAD_CLOSED, LOAD_END, LOAD_ERASE
from .notes import NOTES, PUT
from .trim import PRUNE, TRIM
from .verify import ENTRIES, MEMBERS

__all__ = [
    "APPEND",
    "BEGIN",
    "BOUNDS",
    "CHECK",
    "COUNT",
    "ENTRIES",
    "ERASE",
    "FETCH",
    "FORMAT",
    "GONE",
    "JOIN",
    "KEEP",
    "LIST",
    "LOAD",
    "LOAD_CLOSED",
    "LOAD_END",
    "LOAD_ERASE",
    "MEMBERS",
    "NOTES",
    "PRUNE",
    "PUT",
    "REBUILD",
    "TRIM",
    "Script",
]
