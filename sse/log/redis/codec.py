"""Encodes and decodes names of keys, ids, index members and stream entries. Pure."""

from __future__ import annotations

import hashlib
import logging
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from ...events.model import MAX_POSITION, MAX_SEQUENCE, SEQUENCE_BITS, Record
from ...events.trace import Trace, read_mark

logger = logging.getLogger("headwater.log.redis")

Entry: TypeAlias = Sequence[Any]  # [id, [field, value, …]], all of them bytes

_tuple_new = tuple.__new__  # what Record() calls, without the cost of the call between

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


def decode(entries: Iterable[Entry], traces: list[Trace] | None = None) -> list[Record]:
    """Decode stream entries; leave out foreign ones, which must not stop those behind them.

    traces: a list to which the traces that begin in these entries are added.
    """
    # The hot path: each event passes here once in every worker.
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


def erasures(raw: Sequence[bytes]) -> dict[str, int]:
    """Decode the hash of erased channels: below these positions their records are gone, though Redis still has them."""
    return {channel.decode(): position_of(id) for channel, id in zip(raw[::2], raw[1::2], strict=True)}


def batches(records: list[Record], chars: int) -> Iterator[list[Record]]:
    """Split records into lists of at most ``chars`` characters of data, or of one record."""
    begin = size = 0
    for i, record in enumerate(records):
        size += len(record.data)
        if size > chars and i > begin:
            yield records[begin:i]
            begin, size = i, len(record.data)
    if begin < len(records):
        yield records[begin:]
