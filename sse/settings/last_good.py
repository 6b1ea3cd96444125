"""Keeps the last good settings file in memory that the master and its workers share.

If a worker is replaced while the file is invalid, the new one starts with the settings that its siblings use, not with
those from when the pod started (with a key that was replaced since, for example).
"""

from __future__ import annotations

import mmap
import struct
import zlib

from .file import MAX_FILE_BYTES

# Length and checksum: they reject a mix of two contents that workers wrote at the same time.
_HEAD = struct.Struct("=II")

_memory: mmap.mmap | None = None


def share() -> None:
    """Allocate the memory; call before forking. Pages that are never written cost nothing."""
    global _memory
    if _memory is None:
        _memory = mmap.mmap(-1, _HEAD.size + MAX_FILE_BYTES)


def keep(content: bytes) -> None:
    """Store the content that is now in use. Does nothing before ``share``."""
    if _memory is not None:
        _memory[: _HEAD.size + len(content)] = _HEAD.pack(len(content), zlib.crc32(content)) + content


def last() -> bytes | None:
    """Return the content stored last; None if there is none, or if it is damaged."""
    if _memory is None:
        return None
    size, checksum = _HEAD.unpack(_memory[: _HEAD.size])
    content = _memory[_HEAD.size : _HEAD.size + size]
    return content if size and zlib.crc32(content) == checksum else None
