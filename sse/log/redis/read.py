"""Reading the Redis log: pages of one, some or all channels, and counting in the indexes.

No command returns more than a page, so that Redis is kept from others for some 3 ms at most. What several channels have
is merged here rather than in a script, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ...events.model import Record, format_id
from .channels import Selection
from .client import Client
from .codec import Entry, decode, erasures, from_members, to_member
from .scripts import FETCH

Wanted: TypeAlias = Callable[[str], bool] | None

PAGE: Final = 500  # entries of a read by index; each is looked up by itself
SCAN_PAGE: Final = 5000  # entries of a read in the stream's order; bytes bound it, too
FIRST_PAGE: Final = 100  # while it is not known yet how large the entries are
MERGED: Final = 5000  # positions of all indexes that are read to merge a page
COUNT_BYTES: Final = 1024 * 1024  # of data in a page that is only counted, or searched


def scan(
    client: Client, wanted: Wanted, beyond: str, limit: int, max_bytes: int, *, reverse: bool
) -> list[Record]:
    """Read records beyond an id as the stream has them, oldest first; or reversed from the newest.

    wanted: says which channels' records are read; None: all.
    beyond: "" for the outermost.
    """
    records: list[Record] = []
    size, count, max_bytes = 0, FIRST_PAGE, max(max_bytes, 1)
    while len(records) < limit and size < max_bytes:
        if wanted is None:
            count = min(count, limit - len(records))
        start = f"({beyond}" if beyond else "+" if reverse else "-"
        command = "XREVRANGE" if reverse else "XRANGE"
        span = (start, "-") if reverse else (start, "+")
        entries, found = _page(client, wanted, command, *span, count)
        for record in found:
            if len(records) == limit or size >= max_bytes:
                break
            records.append(record)
            size += len(record.data)
        if len(entries) < count:
            break
        beyond = entries[-1][0].decode()
        count = fitting(entries, COUNT_BYTES if wanted else max_bytes - size, SCAN_PAGE)
    return records


def _page(
    client: Client, wanted: Wanted, command: str, start: str, end: str, count: int
) -> tuple[list[Entry], list[Record]]:
    """Read a page of the stream; return its entries, and of their records those that are wanted and not erased."""
    keys = client.keys
    entries, erasing = client.pipeline(
        (command, keys.events, start, end, "COUNT", count), ("HGET", keys.meta, "erasing")
    )
    records = decode(entries)
    if erasing:
        gone = erasures(client.one("HGETALL", keys.erased))
        records = [record for record in records if record.position >= gone.get(record.channel, 0)]
    if wanted is not None:
        records = [record for record in records if wanted(record.channel)]
    return entries, records


def read_index(
    client: Client, selection: Selection, after: int, limit: int, max_bytes: int, *, reverse: bool
) -> list[Record]:
    """Read some channels' records after a position, oldest first; or reversed from the newest."""
    command = "ZREVRANGEBYLEX" if reverse else "ZRANGEBYLEX"
    newest = b"+" if selection.through is None else b"[" + to_member(selection.through)
    start, end = (newest, b"-") if reverse else (b"(" + to_member(after), newest)
    indexes = [client.keys.channel(name) for name in selection.names]
    records: list[Record] = []
    size, max_bytes = 0, max(max_bytes, 1)
    while indexes and len(records) < limit and size < max_bytes:
        want = min(limit - len(records), PAGE)
        each = min(want, max(MERGED // len(indexes), 10))
        found = client.pipeline(*((command, index, start, end, "LIMIT", 0, each) for index in indexes))
        positions = _merge(list(map(from_members, found)), each, reverse=reverse)[:want]
        if not positions:
            break
        looked, entries = client.run(FETCH, [max_bytes - size, *map(format_id, positions)])
        start = b"(" + to_member(positions[looked - 1])
        for record in decode(entries):
            records.append(record)
            size += len(record.data)
    return records


def _merge(parts: Sequence[Sequence[int]], each: int, *, reverse: bool) -> list[int]:
    """Merge the indexes' positions as far as all are known: a part with ``each`` of them may go on behind its last."""
    edges = [part[-1] for part in parts if len(part) == each]
    merged = sorted((position for part in parts for position in part), reverse=reverse)
    if not edges:
        return merged
    if reverse:
        edge = max(edges)
        return [position for position in merged if position >= edge]
    edge = min(edges)
    return [position for position in merged if position <= edge]


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


def floor_of_all(client: Client, wanted: Wanted, after: int, keep: int) -> int | None:
    """Find it by walking the newest entries, since a stream cannot count. Rarely used. wanted: as for ``scan``."""
    beyond, count = "+", FIRST_PAGE
    while True:
        entries, records = _page(client, wanted, "XREVRANGE", beyond, f"({format_id(after)}", count)
        if len(records) > keep:
            return records[keep].position
        if len(entries) < count:
            return None
        keep -= len(records)
        beyond = "(" + entries[-1][0].decode()
        count = fitting(entries, COUNT_BYTES, SCAN_PAGE)


def fitting(entries: Sequence[Entry], size: int, most: int) -> int:
    """Estimate how many more entries like these fit into so many bytes of data; from 1 to ``most``."""
    average = sum([len(fields[3]) for _, fields in entries if len(fields) > 3]) // max(len(entries), 1)
    return max(1, min(size // max(average, 1), most))
