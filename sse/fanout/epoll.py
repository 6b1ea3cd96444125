"""Sockets that were taken over: non-blocking writes by descriptor, and one epoll object for all of them.

After the takeover no Python socket object is left, so everything here works on descriptors. Registration is
edge-triggered: an idle stream causes no event until its peer hangs up, and a stream that lags is told once when
its socket has room again.
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
from typing import Any, Final

# gevent's monkey patching removes select.epoll; ours is watched by gevent's own loop, which keeps it cooperative.
# This module may be imported before or after the patching.
_epoll: Any = getattr(select, "epoll", None)
if _epoll is None:
    from gevent.monkey import get_original

    _epoll = get_original("select", "epoll")

ERROR: Final = 0x8  # EPOLLERR: a reset, or the network gave the connection up
HANG_UP: Final = ERROR | 0x10  # EPOLLHUP: both sides are shut down
PEER_CLOSED: Final = 0x2000  # EPOLLRDHUP: the peer shut down its sending side
READABLE: Final = 0x1
WRITABLE: Final = 0x4
_EDGE: Final = 1 << 31

# Bytes in the kernel that were not yet sent to the peer, beyond which a socket counts as full. Keeps what a slow
# reader pins in kernel memory small, and makes it show as lagging soon (tcp(7), TCP_NOTSENT_LOWAT).
NOT_SENT_LIMIT_BYTES: Final = 128 * 1024

# A peer may send a stray request on a stream; one that sends more than this at a time is an attack on our loop.
INPUT_LIMIT_BYTES: Final = 16 * 1024

# TCP_USER_TIMEOUT in write time-outs: our own is to come first where bytes wait here; the kernel's is for those that
# only it still has. It also counts while a slow reader's window is closed, hence the factor.
USER_TIMEOUT_FACTOR: Final = 3

EVENTS_PER_POLL: Final = 512

_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", 18)


class Flooded(Exception):
    """The peer sends more on a stream than an HTTP client has reason to."""


class Poller:
    """Who hung up, who has sent something, who can be written to again."""

    def __init__(self) -> None:
        self._epoll = _epoll()

    def fileno(self) -> int:
        fd: int = self._epoll.fileno()
        return fd

    def add(self, fd: int) -> None:
        self._epoll.register(fd, READABLE | PEER_CLOSED | _EDGE)

    def want_write(self, fd: int) -> None:
        """Report WRITABLE as soon as the socket has room (at once if it has already)."""
        self._epoll.modify(fd, READABLE | WRITABLE | PEER_CLOSED | _EDGE)

    def unwant_write(self, fd: int) -> None:
        self._epoll.modify(fd, READABLE | PEER_CLOSED | _EDGE)

    def poll(self) -> list[tuple[int, int]]:
        """What has happened, as (descriptor, mask); never blocks."""
        events: list[tuple[int, int]] = self._epoll.poll(0, EVENTS_PER_POLL)
        return events

    def close(self) -> None:
        self._epoll.close()


def prepare(fd: int, user_timeout: float) -> None:
    """Make a descriptor ready for streaming. ``user_timeout`` in seconds bounds how long the kernel keeps unanswered
    bytes for a peer that vanished without a FIN (RFC 5482); 0 leaves the system's default."""
    os.set_blocking(fd, False)
    with contextlib.suppress(OSError):  # a socket pair (the canary) has no TCP options
        sock = _socket.socket(fileno=os.dup(fd))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), NOT_SENT_LIMIT_BYTES)
            if user_timeout > 0:
                sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(user_timeout * 1000))
        finally:
            sock.close()


def set_user_timeout(fd: int, user_timeout: float) -> None:
    """See :func:`prepare`."""
    with contextlib.suppress(OSError):
        sock = _socket.socket(fileno=os.dup(fd))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(user_timeout * 1000))
        finally:
            sock.close()


def discard_input(fd: int) -> bool:
    """Throw away what the peer sent; True when it has closed its side. Raises Flooded, OSError."""
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
    """Bytes in the kernel that the peer has not acknowledged yet (tcp(7), SIOCOUTQ); 0 where that cannot be told."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return 0
    return int(count)


def shut_down(fd: int) -> None:
    """Send our FIN: after the terminating chunk there is nothing more."""
    sock = _socket.socket(fileno=fd)
    try:
        sock.shutdown(socket.SHUT_WR)
    finally:
        sock.detach()
