"""The gzip coding of an event stream (RFC 1952), in pieces that can be read at once. Pure.

A stream is a head, any number of *pieces*, and an end. Each piece is one or more deflate blocks that end on a byte
boundary (zlib's Z_SYNC_FLUSH), so a client can decode all of it when it arrives. A compressor that made earlier pieces
may refer back to them; :func:`alone` refers to nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

# Member header (RFC 1952 §2.3): deflate, no flags, no time, no extra flags, unknown operating system.
HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# An empty last block with fixed codes (RFC 1951 §3.2.3): BFINAL = 1, BTYPE = 01, end of block.
_LAST_BLOCK: Final = b"\x03\x00"

# zlib's own default. For small JSON events level 1 is no faster, and leaves a tenth more bytes.
_LEVEL: Final = 6
# A compressor that keeps history takes 2^(bits + 2) + 2^(memory + 9) bytes (zconf.h), so 96 KB: a third of zlib's
# default, for 2 % more bytes. 16 KB are a hundred events of 150 bytes.
_HISTORY_BITS: Final = 14
_MEMORY: Final = 6

# A compressor is given this much at a time: about a millisecond.
SLICE_BYTES: Final = 64 * 1024
# More than this is copied as it is (stored blocks) where the event loop cannot run in between.
AT_ONCE_BYTES: Final = 256 * 1024


class Sums(NamedTuple):
    """What a gzip stream's end says of the text before it (RFC 1952 §2.3.1): its CRC-32, and its length in bytes."""

    crc: int = 0
    size: int = 0

    def plus(self, text: bytes) -> Sums:
        """Return the sums of this text and another one behind it."""
        return Sums(zlib.crc32(text, self.crc), self.size + len(text))


def compressor() -> Any:
    """Return a compressor whose pieces may refer back to its earlier ones, for :func:`piece`."""
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, -_HISTORY_BITS, _MEMORY)


def piece(compressor: Any, text: bytes, pause: Callable[[], None] = lambda: None) -> bytes:
    """Compress a text, which must not be empty, into one piece. ``pause``: called after each slice of a long text."""
    if len(text) <= SLICE_BYTES:
        made: bytes = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return made
    view, pieces = memoryview(text), []
    for begin in range(0, len(text), SLICE_BYTES):
        pieces.append(compressor.compress(view[begin : begin + SLICE_BYTES]))
        pause()
    return b"".join([*pieces, compressor.flush(zlib.Z_SYNC_FLUSH)])


def alone(text: bytes, pause: Callable[[], None] | None = None) -> bytes:
    """Compress a text into one piece that refers to nothing before it. Without ``pause`` a very long text is copied."""
    level = 0 if pause is None and len(text) > AT_ONCE_BYTES else _LEVEL
    # No larger a window than the text needs: to make and clear it costs more than to compress an event.
    bits = min(max(len(text).bit_length(), 9), 15)
    return piece(zlib.compressobj(level, zlib.DEFLATED, -bits, _MEMORY), text, pause or (lambda: None))


def end(sums: Sums) -> bytes:
    """Return the end of a stream: its last block and its trailer."""
    return _LAST_BLOCK + struct.pack("<II", sums.crc, sums.size & 0xFFFFFFFF)


# The effect of 2^k zero bytes on a CRC's 32 bits, as matrices over GF(2): a column for each bit.
_ZEROS: Final = [[zlib.crc32(b"\0", 1 << bit) ^ zlib.crc32(b"\0") for bit in range(32)]]


def _times(matrix: list[int], vector: int) -> int:
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product


def shifted(crc: int, count: int) -> int:
    """Return what a difference between two CRCs becomes after the same ``count`` bytes behind both.

    So ``crc32(a + b) == shifted(crc32(a), len(b)) ^ crc32(b)``. The method is that of zlib's ``crc32_combine`` up to
    1.2.11 (crc32.c, Mark Adler): a CRC is linear, so squaring a matrix doubles the number of bytes that it stands for.
    About 2 µs for each bit that is set in ``count``.
    """
    power = 0
    while count:
        if power == len(_ZEROS):
            _ZEROS.append([_times(_ZEROS[-1], column) for column in _ZEROS[-1]])
        if count & 1:
            crc = _times(_ZEROS[power], crc)
        count >>= 1
        power += 1
    return crc
