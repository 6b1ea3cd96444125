"""System calls on sockets that were taken over, and one epoll object for all of them.

The takeover leaves no Python socket object, so everything here works on descriptors. Registration is edge-triggered: an
idle stream causes no event until its peer hangs up, and a lagging one causes one event when its socket has room again.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Iterator
from typing import Any, Final

# gevent's monkey patching removes select.epoll, because its poll() blocks. Ours never waits in poll(): gevent's loop
# watches the epoll object's own descriptor. This module may be imported before or after the patching.
_epoll: Any = getattr(select, "epoll", None)
if _epoll is None:
    from gevent.monkey import get_original

    _epoll = get_original("select", "epoll")

ERROR: Final = 0x8  # EPOLLERR: a reset, or the kernel gave the connection up
HANG_UP: Final = ERROR | 0x10  # EPOLLHUP: both sides are shut down
PEER_CLOSED: Final = 0x2000  # EPOLLRDHUP: the peer shut down its sending side
READABLE: Final = 0x1
WRITABLE: Final = 0x4
_EDGE: Final = 1 << 31

# A socket counts as full when the kernel holds this much unsent data (tcp(7), TCP_NOTSENT_LOWAT). A slow reader then
# pins little kernel memory, and soon shows as lagging.
NOT_SENT_LIMIT_BYTES: Final = 128 * 1024

# A client may send a stray request on a stream. Threat: one that sends more than this at a time keeps our loop busy.
INPUT_LIMIT_BYTES: Final = 16 * 1024

# The kernel's time-out (TCP_USER_TIMEOUT), as a multiple of our write time-out. Ours covers bytes that wait here, the
# kernel's those that only it still has. It also runs while a slow reader's window is closed, hence the factor.
USER_TIMEOUT_FACTOR: Final = 3

EVENTS_PER_POLL: Final = 512


class Flooded(Exception):
    """The peer sends more on a stream than an HTTP client has reason to."""


class Poller:
    """Tells which peers hung up or sent something, and which sockets have room again."""

    def __init__(self) -> None:
        self._epoll = _epoll()

    def fileno(self) -> int:
        fd: int = self._epoll.fileno()
        return fd

    def add(self, fd: int) -> None:
        self._epoll.register(fd, READABLE | PEER_CLOSED | _EDGE)

    def want_write(self, fd: int) -> None:
        """Report WRITABLE as soon as the socket has room, at once if it has room now."""
        self._epoll.modify(fd, READABLE | WRITABLE | PEER_CLOSED | _EDGE)

    def unwant_write(self, fd: int) -> None:
        self._epoll.modify(fd, READABLE | PEER_CLOSED | _EDGE)

    def poll(self) -> list[tuple[int, int]]:
        """Return what has happened, as (descriptor, mask). Never blocks."""
        events: list[tuple[int, int]] = self._epoll.poll(0, EVENTS_PER_POLL)
        return events

    def close(self) -> None:
        self._epoll.close()


def prepare(fd: int, user_timeout: float) -> None:
    """Make a descriptor ready for streaming. ``user_timeout``: see :func:`set_user_timeout`."""
    os.set_blocking(fd, False)
    with contextlib.suppress(OSError), _socket_of(fd) as sock:  # a socket pair (the canary) has no TCP options
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LIMIT_BYTES)
    set_user_timeout(fd, user_timeout)


def set_user_timeout(fd: int, user_timeout: float) -> None:
    """Bound how long the kernel keeps unacknowledged bytes for a peer that vanished without a FIN (RFC 5482): seconds;
    0 = the system's default."""
    with contextlib.suppress(OSError), _socket_of(fd) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))


def discard_input(fd: int) -> bool:
    """Discard what the peer sent; return whether it has closed its side. Raises Flooded, OSError."""
    total = 0
    while True:
        try:
            data = os.read(fd, INPUT_LIMIT_BYTES)
        except BlockingIOError:
            return False
        if not data:
            return True
        total += len(data)
        if total >= INPUT_LIMIT_BYTES:
            raise Flooded


def unacknowledged(fd: int) -> int:
    """Return the bytes that the peer has not acknowledged (tcp(7), SIOCOUTQ); 0 if the kernel cannot tell."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return 0
    return int(count)


def shut_down(fd: int) -> None:
    """Send our FIN."""
    with _socket_of(fd) as sock:
        sock.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _socket_of(fd: int) -> Iterator[_socket.socket]:
    """Yield a socket object for a descriptor, and leave the descriptor open."""
    sock = _socket.socket(fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()
