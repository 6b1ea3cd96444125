"""The part of Linux's inotify that a follower needs: a descriptor that becomes readable when a file is touched.

"Touched" is a change of its times or other attributes (IN_ATTRIB), not of its content; see ``wakeup`` for why.
See inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_IN_ATTRIB: Final = 0x00000004  # linux/inotify.h; the same on every architecture
_IN_NONBLOCK: Final = os.O_NONBLOCK
_IN_CLOEXEC: Final = os.O_CLOEXEC

# Any number of unread events of one kind on one file is kept as one (inotify(7)), and an event of a watched
# file carries no name: one read is always enough.
_EVENT_BYTES: Final = struct.calcsize("iIII")


class Watch:
    """Watches one file. Raises ``OSError`` without inotify, or when no instance is left.

    (The kernel's default is 128 instances for all processes of a user,
    /proc/sys/fs/inotify/max_user_instances, and on a shared node others may hold them.)
    """

    def __init__(self, path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            init, add = libc.inotify_init1, libc.inotify_add_watch
        except AttributeError:
            raise OSError("this system has no inotify") from None
        self.fd: int = init(_IN_NONBLOCK | _IN_CLOEXEC)
        if self.fd < 0:
            raise _os_error("inotify_init1")
        if add(self.fd, os.fsencode(path), ctypes.c_uint32(_IN_ATTRIB)) < 0:
            error = _os_error(path)
            self.close()
            raise error

    def drain(self) -> None:
        """Discard the reported events."""
        try:
            while len(os.read(self.fd, 16 * _EVENT_BYTES)) == 16 * _EVENT_BYTES:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self.fd)


def _os_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
