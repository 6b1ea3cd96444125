"""Reading the Redis log: pages of one, some or all channels, and counting in the indexes.

No command returns more than a page, so that Redis is kept from others for some 3 ms at most. What several channels have
is merged here rather than in a script, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...events.model import Record, format_id
from .client import Client
from .codec import Entry, decode, from_members, position_of, to_member
from .scripts import FETCH

PAGE: Final = 500  # entries of a read by index; each is looked up by itself
SCAN_PAGE: Final = 5000  # entries of a read in the stream's order; bytes bound it, too
FIRST_PAGE: Final = 100  # while it is not known yet how large the entries are
COUNT_BYTES: Final = 1024 * 1024  # of data in a page that is only counted


def scan(client: Client, beyond: str, limit: int, max_bytes: int, *, reverse: bool) -> list[Record]:
    """Read all channels' records beyond an id, oldest first; or reversed from the newest, with "" for ``beyond``."""
    records: list[Record] = []
    size, count, max_bytes = 0, FIRST_PAGE, max(max_bytes, 1)
    while len(records) < limit and size < max_bytes:
        count = min(count, limit - len(records))
        start = f"({beyond}" if beyond else "+" if reverse else "-"
        command = "XREVRANGE" if reverse else "XRANGE"
        span = (start, "-") if reverse else (start, "+")
        entries = client.one(command, client.keys.events, *span, "COUNT", count)
        for record in decode(entries):
            records.append(record)
            size += len(record.data)
            if size >= max_bytes:
                break
        if len(entries) < count:
            break
        beyond = entries[-1][0].decode()
        count = fitting(entries, max_bytes - size, SCAN_PAGE)
    return records


def read_index(
    client: Client, channels: frozenset[str], after: int, limit: int, max_bytes: int, *, reverse: bool
) -> list[Record]:
    """Read some channels' records after a position, oldest first; or reversed from the newest."""
    command = "ZREVRANGEBYLEX" if reverse else "ZRANGEBYLEX"
    start, end = (b"+", b"-") if reverse else (b"(" + to_member(after), b"+")
    records: list[Record] = []
    size, max_bytes = 0, max(max_bytes, 1)
    while channels and len(records) < limit and size < max_bytes:
        want = min(limit - len(records), PAGE)
        indexes = [client.keys.channel(name) for name in channels]
        found = client.pipeline(*((command, index, start, end, "LIMIT", 0, want) for index in indexes))
        positions = sorted((p for part in found for p in from_members(part)), reverse=reverse)[:want]
        if not positions:
            break
        looked, entries = client.run(FETCH, [max_bytes - size, *map(format_id, positions)])
        start = b"(" + to_member(positions[looked - 1])
        for record in decode(entries):
            records.append(record)
            size += len(record.data)
    return records


def floor(client: Client, channels: frozenset[str], after: int, keep: int, latest: int) -> int | None:
    """Find the position that exactly ``keep`` of these channels' events follow; None if no more follow ``after``.

    latest: of the log. One round trip and O(log n) for one channel; for several the position is found by halving
    the span until a page holds what is left of it, a dozen round trips.
    """
    indexes = [client.keys.channel(name) for name in channels]

    def count(after: int, through: int) -> int:
        span = b"(" + to_member(after), b"[" + to_member(through)
        return sum(client.pipeline(*(("ZLEXCOUNT", index, *span) for index in indexes)))

    # More than ``keep`` events follow ``low``, and no more than ``keep`` follow ``high``.
    low, high, beyond_high = after, max(latest, after), 0
    beyond_low = count(low, high)
    if beyond_low <= keep:
        return None
    if len(indexes) == 1:
        rank = client.one("ZREVRANGE", indexes[0], keep, keep)
        return from_members(rank)[0] if rank else None
    while beyond_low - beyond_high > PAGE and high - low > 1:
        middle = (low + high) // 2
        beyond_middle = count(middle, high) + beyond_high
        if beyond_middle > keep:
            low, beyond_low = middle, beyond_middle
        else:
            high, beyond_high = middle, beyond_middle
    span = b"(" + to_member(low), b"[" + to_member(high)
    parts = client.pipeline(*(("ZRANGEBYLEX", index, *span) for index in indexes))
    between = sorted(p for part in parts for p in from_members(part))
    # Keep the newest of these, as many as ``keep`` has room for. (Some may have been trimmed meanwhile.)
    dropped = len(between) - (keep - beyond_high)
    return between[dropped - 1] if dropped > 0 else low


def floor_of_all(client: Client, after: int, keep: int) -> int | None:
    """Find it for all channels by walking the newest ``keep`` entries, since a stream cannot count. Rarely used."""
    kept, beyond, count = 0, "+", FIRST_PAGE
    while True:
        page = client.one("XREVRANGE", client.keys.events, beyond, f"({format_id(after)}", "COUNT", count)
        if kept + len(page) > keep:
            return position_of(page[keep - kept][0])
        if len(page) < count:
            return None
        kept += len(page)
        beyond = "(" + page[-1][0].decode()
        count = fitting(page, COUNT_BYTES, SCAN_PAGE)


def fitting(entries: Sequence[Entry], size: int, most: int) -> int:
    """Estimate how many more entries like these fit into so many bytes of data; from 1 to ``most``."""
    average = sum(len(fields[3]) for _, fields in entries if len(fields) > 3) // max(len(entries), 1)
    return max(1, min(size // max(average, 1), most))
