"""A disk with a volatile cache, which remembers in which order it was written to and flushed.

A FUSE file system with one file, for a loop device: its writes arrive here as WRITE, its flushes as FSYNC. The protocol
is Linux's (include/uapi/linux/fuse.h), spoken directly on ``/dev/fuse``. Requests are answered one at a time, so what
was answered before a flush arrived is what that flush made durable.

As a program: ``python -m tests.power.device IMAGE MOUNTPOINT JOURNAL``, as root. The disk begins with the image's
content; the journal gets a record of each write and flush (``records``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

NAME: Final = "disk"
_ROOT, _DISK = 1, 2  # node ids
_MOST: Final = 1 << 20  # bytes of a write
_VALID: Final = 3600  # seconds for which the kernel need not ask for attributes again
_DIRECT_IO: Final = 1  # FOPEN_DIRECT_IO: no cache in between
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_OUT: Final = struct.Struct("<IiQ")
_IN: Final = struct.Struct("<IIQQIIIHH")
_RECORD: Final = struct.Struct("<QQI")  # ns (CLOCK_MONOTONIC), offset, bytes that follow; a flush has no bytes
_FLUSH: Final = 0xFFFFFFFFFFFFFFFF  # its offset


class Record(NamedTuple):
    """A write, or a flush if ``data`` is None. at: when it arrived, ns of ``time.monotonic_ns``."""

    at: int
    offset: int
    data: bytes | None


def records(journal: Path) -> Iterator[Record]:
    """Yield what happened to the disk, in order."""
    with journal.open("rb") as file:
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            at, offset, size = _RECORD.unpack(head)
            yield Record(at, 0, None) if offset == _FLUSH else Record(at, offset, file.read(size))


def _attributes(node: int, size: int) -> bytes:
    mode, links = (0o40755, 2) if node == _ROOT else (0o100600, 1)
    return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)


class Device:
    """Answers the kernel's requests until the file system is unmounted."""

    def __init__(self, fd: int, content: bytearray, journal: int) -> None:
        self._fd = fd
        self._content = content
        self._journal = journal

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._fd, _MOST + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                raise
            at = time.monotonic_ns()
            _, code, unique, node, *_ = _IN.unpack_from(request)
            body = memoryview(request)[_IN.size :]
            try:
                answer = self._answer(code, node, body, at)
            except OSError as error:
                os.write(self._fd, _OUT.pack(_OUT.size, -(error.errno or errno.EIO), unique))
            else:
                if answer is not None:
                    os.write(self._fd, _OUT.pack(_OUT.size + len(answer), 0, unique) + answer)

    def _answer(self, code: int, node: int, body: memoryview, at: int) -> bytes | None:
        size = len(self._content)
        match code:
            case 26:  # INIT: version 7.31, and what we can do
                _, _, readahead, flags = struct.unpack_from("<4I", body)
                flags &= _BIG_WRITES | _MAX_PAGES
                return struct.pack("<4IHHIIHHII24x", 7, 31, readahead, flags, 16, 12, _MOST, 1, _MOST // 4096, 0, 0, 0)
            case 1:  # LOOKUP
                if bytes(body).rstrip(b"\0").decode() != NAME:
                    raise OSError(errno.ENOENT, "no such file")
                return struct.pack("<4QII", _DISK, 0, _VALID, _VALID, 0, 0) + _attributes(_DISK, size)
            case 3 | 4:  # GETATTR, SETATTR
                return struct.pack("<QII", _VALID, 0, 0) + _attributes(node, size)
            case 14 | 27:  # OPEN, OPENDIR
                return struct.pack("<QII", 0, _DIRECT_IO if node == _DISK else 0, 0)
            case 15:  # READ
                _, offset, count = struct.unpack_from("<QQI", body)
                return bytes(self._content[offset : offset + count])
            case 16:  # WRITE
                _, offset, count = struct.unpack_from("<QQI", body)
                data = body[40 : 40 + count]
                self._content[offset : offset + count] = data
                os.writev(self._journal, [_RECORD.pack(at, offset, count), data])
                return struct.pack("<II", count, 0)
            case 20:  # FSYNC
                os.write(self._journal, _RECORD.pack(at, _FLUSH, 0))
                return b""
            case 17:  # STATFS
                return struct.pack("<5Q4I24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
            case 18 | 25 | 29 | 34 | 38:  # RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY
                return b""
            case 2 | 36 | 42:  # FORGET, INTERRUPT, BATCH_FORGET: no answer
                return None
        raise OSError(errno.ENOSYS, "not known")


def main(image: str, mountpoint: str, journal: str) -> None:
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"headwater", os.fsencode(mountpoint), b"fuse", 6, options) != 0:  # nosuid, nodev
        raise OSError(ctypes.get_errno(), "mount")
    log = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    Device(fd, bytearray(Path(image).read_bytes()), log).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
