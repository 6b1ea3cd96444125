"""Encodes and decodes names of keys, ids, index members and stream entries. Pure."""

from __future__ import annotations

import hashlib
import logging
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, TypeAlias

from ...events.model import MAX_POSITION, MAX_SEQUENCE, SEQUENCE_BITS, Record
from ...events.trace import Trace, read_mark

logger = logging.getLogger("headwater.log.redis")

Entry: TypeAlias = Sequence[Any]  # [id, [field, value, …]], all of them bytes

_tuple_new = tuple.__new__  # what Record() calls, without the cost of the call between

FEW: Final = 4  # fewer entries are decoded one by one: making columns would cost as much
_data = itemgetter(4)  # a record's
_UNTYPED: Final = (b"e", b"", b"r", b"")  # what an entry without a type lacks

PREFIX: Final = re.compile(r"[A-Za-z0-9{][A-Za-z0-9._:{}-]{0,63}")
PREFIX_ALLOWED: Final = "1 to 64 letters, digits and . _ : - { }, beginning with a letter, a digit or {"


class Keys:
    """The names of a log's keys. ``scripts`` tells what is in them."""

    def __init__(self, prefix: str) -> None:
        if not PREFIX.fullmatch(prefix):
            raise ValueError(f"Redis key prefix {prefix!r}: must be {PREFIX_ALLOWED}")
        # A hash tag keeps a log's keys in one slot: scripts must not reach over several in a Redis cluster.
        root = prefix if re.search(r"\{[^}]+\}", prefix) else f"{{{prefix}}}"
        self.meta = f"{root}:meta"
        self.events = f"{root}:events"
        self.claim = f"{root}:trim"
        self.scratch = f"{root}:check"
        self.scratch_moved = f"{root}:check:moved"
        self.index = f"{root}:ch:"
        self.book = f"{root}:book"
        self.closed = f"{root}:closed"
        self.copy = f"{root}:copy"
        self.erased = f"{root}:erased"
        self.gone = f"{root}:gone"
        self.idle = f"{root}:idle"
        self.names = f"{root}:names"
        self.rebuild = f"{root}:rebuild"
        self._remembered = f"{root}:key:"
        self._note = f"{root}:note:"

    def channel(self, name: str) -> str:
        return self.index + name

    def note(self, kind: str) -> str:
        return self._note + kind

    def remembered(self, key: str) -> str:
        """Return the name for an idempotency key, hashed because clients choose its text and length."""
        return self._remembered + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def position_of(raw: bytes) -> int:
    """Return the position of a stream id; clip one that a foreign writer made too large, as ``parse_id`` does."""
    ms, _, n = raw.partition(b"-")
    return min((int(ms) << SEQUENCE_BITS) + min(int(n), MAX_SEQUENCE), MAX_POSITION)


def to_member(position: int) -> bytes:
    return position.to_bytes(8, "big")


def from_members(members: Iterable[bytes]) -> list[int]:
    joined = b"".join(members)
    return list(struct.unpack(f">{len(joined) // 8}Q", joined))


def decode(entries: Sequence[Entry], traces: list[Trace] | None = None) -> list[Record]:
    """Decode stream entries; leave out foreign ones, which must not stop those behind them.

    traces: a list to which the traces that begin in these entries are added.
    """
    # The hot path: each event passes here once in every worker.
    usual = _decode_usual(entries)
    if usual is not None:
        return usual
    records = []
    names: dict[bytes, str] = {}  # decode a channel's name once, so that its hash is computed once, too
    last_ms, base = b"", 0
    for raw, fields in entries:
        try:
            ms, _, n = raw.partition(b"-")
            sequence = int(n)
            event = retry = None
            if len(fields) == 4:
                c, channel, d, data = fields
            else:
                c, channel, d, data, _, kind, mark, delay = fields
                event = kind.decode() or None
                retry = int(delay) if delay else None
                if mark != b"r" and traces is not None and (trace := read_mark(mark, position_of(raw))):
                    traces.append(trace)
            if c != b"c" or d != b"d" or sequence > MAX_SEQUENCE:
                raise ValueError("other fields, or an id that is no position")
            if ms != last_ms:
                last_ms, base = ms, int(ms) << SEQUENCE_BITS
            name = names.get(channel)
            if name is None:
                name = names[channel] = channel.decode()
            records.append(_tuple_new(Record, (base | sequence, name, event, retry, data.decode())))
        except ValueError as error:
            logger.warning("the entry %s of the stream is not of this service, and left out: %s", raw, error)
    return records


def _decode_usual(entries: Sequence[Entry]) -> list[Record] | None:
    """Decode by column, at half the cost; None unless all entries are usual ones: without ``retry`` and traces."""
    if len(entries) < FEW:
        return None
    rows: Sequence[Sequence[bytes]]
    ids, rows = zip(*entries, strict=True)
    shapes = set(map(len, rows))
    if shapes == {4, 8}:
        rows = [row if len(row) == 8 else (*row, *_UNTYPED) for row in rows]
    kinds: Iterable[str | None] = repeat(None)
    try:
        if shapes == {4}:
            c, channels, d, data = zip(*rows, strict=True)
        elif shapes <= {4, 8}:
            c, channels, d, data, _, raw, marks, delays = zip(*rows, strict=True)
            if set(marks) != {b"r"} or any(delays):
                return None
            types = {kind: kind.decode() or None for kind in set(raw)}
            kinds = map(types.__getitem__, raw)
        else:
            return None
        if set(c) != {b"c"} or set(d) != {b"d"}:
            return None
        numbers = list(map(int, b"-".join(ids).split(b"-")))
        names = {name: name.decode() for name in set(channels)}
        texts = list(map(bytes.decode, data))
    except ValueError:
        return None
    sequences = numbers[1::2]
    if len(numbers) != 2 * len(ids) or max(sequences) > MAX_SEQUENCE:
        return None
    positions = [ms << SEQUENCE_BITS | n for ms, n in zip(numbers[::2], sequences, strict=True)]
    columns = zip(positions, map(names.__getitem__, channels), kinds, repeat(None), texts, strict=False)
    records: Any = map(_tuple_new, repeat(Record), columns)
    return list(records)


def erasures(raw: Sequence[bytes]) -> dict[str, int]:
    """Decode the hash of erased channels: below these positions their records are gone, though Redis still has them."""
    return {channel.decode(): position_of(id) for channel, id in zip(raw[::2], raw[1::2], strict=True)}


def batches(records: list[Record], chars: int) -> Iterator[list[Record]]:
    """Split records into lists of at most ``chars`` characters of data, or of one record."""
    if sum(map(len, map(_data, records))) <= chars:
        if records:
            yield records
        return
    begin = size = 0
    for i, record in enumerate(records):
        size += len(record.data)
        if size > chars and i > begin:
            yield records[begin:i]
            begin, size = i, len(record.data)
    if begin < len(records):
        yield records[begin:]
