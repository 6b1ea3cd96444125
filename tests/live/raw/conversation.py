"""One connection to the server under test: what was sent and read, and when."""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.server import Server
from tests.support.sse_parser import ChunkedDecoder, EventParser, StreamEvent

_ESTABLISHED = 1  # the first byte of struct tcp_info, its state, from include/net/tcp_states.h
PATIENCE = 5.0  # seconds for what should happen at once


class Surprise(AssertionError):
    """The server did something else than the case says."""


@dataclass
class Head:
    """An answer's status line and headers (names in lower case; a repeated one keeps its last value)."""

    status: int
    headers: dict[str, str]


@dataclass
class Conversation:
    """The client's side; steps work on it one after the other.

    ``mark`` is the moment (``time.monotonic``) that time limits count from: the connection's at first.
    """

    server: Server
    sock: socket.socket
    mark: float = field(default_factory=time.monotonic)
    unread: bytearray = field(default_factory=bytearray)
    ended: str = ""  # "FIN" or "RST" once the server's end was seen
    chunked: ChunkedDecoder | None = None
    parser: EventParser = field(default_factory=EventParser)
    blocks: list[StreamEvent] = field(default_factory=list)
    _inode: str = ""
    _holder: str = ""  # the path in /proc of a descriptor that was it

    def elapsed(self) -> float:
        """Seconds since the mark."""
        return time.monotonic() - self.mark

    # --- reading ----------------------------------------------------------------------------------------

    def receive(self, until: float, size: int = 65536) -> bool:
        """Read once into ``unread``; False: nothing came before ``until`` (monotonic), or the end came."""
        if self.ended:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if not poll.poll(max(until - time.monotonic(), 0) * 1000):
            return False
        try:
            piece = self.sock.recv(size)
        except ConnectionError:
            self.ended = "RST"
            return False
        if not piece:
            self.ended = "FIN"
        self.unread += piece
        return bool(piece)

    def need(self, count: int, what: str) -> None:
        """Read until ``count`` bytes are unread."""
        deadline = time.monotonic() + PATIENCE
        while len(self.unread) < count:
            if not self.receive(deadline):
                got = bytes(self.unread[:200])
                raise Surprise(f"{self.ended or 'silence'} instead of {what}; {len(self.unread)} bytes: {got!r}")

    def take(self, count: int) -> bytes:
        """Remove ``count`` bytes from ``unread``."""
        piece = bytes(self.unread[:count])
        del self.unread[:count]
        return piece

    def head(self, patience: float = PATIENCE) -> Head:
        """Read an answer's head."""
        deadline = time.monotonic() + patience
        while (end := self.unread.find(b"\r\n\r\n")) < 0:
            if not self.receive(deadline):
                got = bytes(self.unread[:200])
                raise Surprise(f"{self.ended or 'silence'} instead of an answer's head: {got!r}")
        status_line, *lines = self.take(end + 4)[:-4].decode("latin-1").split("\r\n")
        if not status_line.startswith("HTTP/1."):
            raise Surprise(f"no status line: {status_line!r}")
        pairs = (line.partition(":") for line in lines)
        return Head(int(status_line.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs})

    def body(self, head: Head) -> bytes:
        """Read an answer's body as RFC 9112 §6.3 delimits it."""
        if "transfer-encoding" in head.headers:
            decoder, body = ChunkedDecoder(), b""
            while not decoder.terminated:
                self.need(1, "a chunk")
                body += decoder.feed(self.take(1))  # byte by byte: what follows is another answer's
            return body
        if "content-length" in head.headers:
            length = int(head.headers["content-length"])
            self.need(length, "the body")
            return self.take(length)
        while self.receive(time.monotonic() + PATIENCE):
            pass
        if self.ended != "FIN":
            raise Surprise(f"{self.ended or 'silence'} instead of the end of a close-delimited body")
        return self.take(len(self.unread))

    def parse_stream(self) -> None:
        """Move what is unread through the chunk decoder into blocks."""
        octets = self.take(len(self.unread))
        if self.chunked:
            octets = self.chunked.feed(octets)
        self.blocks.extend(self.parser.feed(octets))

    # --- the server's side --------------------------------------------------------------------------------

    def remember_socket(self) -> None:
        """Find the inode of the server's end, while the kernel still knows which one it is."""
        deadline = time.monotonic() + PATIENCE
        while not self._inode and self._established() and time.monotonic() < deadline:
            self._inode = _inode_of(self.sock.getpeername()[1], self.sock.getsockname()[1])
            if not self._inode:
                time.sleep(0.01)  # in the backlog: no process has accepted it yet

    def _established(self) -> bool:
        """No FIN and no RST of the server's has come."""
        if self.sock.fileno() < 0:
            return False
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED

    def server_holds_socket(self) -> bool:
        """Whether any process of the server still has a descriptor of its end of this connection."""
        if not self._inode:
            return False
        if _link(self._holder) != self._inode:  # closed, or duplicated and closed: look again everywhere
            found = (path for pid in self.server.pids() for path in descriptors(pid))
            self._holder = next((path for path in found if _link(path) == self._inode), "")
        return bool(self._holder)


def descriptors(pid: int) -> list[str]:
    """Paths in /proc of a process's file descriptors."""
    try:
        return [f"/proc/{pid}/fd/{entry}" for entry in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def open_sockets(server: Server) -> int:
    """How many sockets the server's processes have, one held twice counted twice."""
    return sum(_link(path).startswith("socket:") for pid in server.pids() for path in descriptors(pid))


def _link(path: str) -> str:
    try:
        return os.readlink(path) if path else ""
    except OSError:
        return ""


def _inode_of(local_port: int, remote_port: int) -> str:
    """``socket:[…]`` of the 127.0.0.1 connection with these ports; empty: there is none, or not accepted."""
    local, remote = f"0100007F:{local_port:04X}", f"0100007F:{remote_port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == local and fields[2] == remote and fields[9] != "0":
            return f"socket:[{fields[9]}]"
    return ""
