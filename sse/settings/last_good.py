"""The last settings file that was good, in memory that the master and its workers share.

For a worker that has to be replaced while the file is bad: it starts with what its siblings run on, and not with
what the file said when the pod started (a key that was replaced since then, for example).
"""

from __future__ import annotations

import mmap
import struct
import zlib

from .file import MAX_FILE_BYTES

# Length and checksum: of two workers that write at once, with different contents, none is believed.
_HEAD = struct.Struct("=II")

_memory: mmap.mmap | None = None


def share() -> None:
    """Begin, in the process that the others will be forked from. Pages that are never written cost nothing."""
    global _memory
    if _memory is None:
        _memory = mmap.mmap(-1, _HEAD.size + MAX_FILE_BYTES)


def keep(content: bytes) -> None:
    """This content is in use; does nothing where nothing is shared."""
    if _memory is not None:
        _memory[: _HEAD.size + len(content)] = _HEAD.pack(len(content), zlib.crc32(content)) + content


def last() -> bytes | None:
    """What was kept last."""
    if _memory is None:
        return None
    size, checksum = _HEAD.unpack(_memory[: _HEAD.size])
    content = _memory[_HEAD.size : _HEAD.size + size]
    return content if size and zlib.crc32(content) == checksum else None
