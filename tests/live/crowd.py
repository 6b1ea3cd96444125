"""Thousands of EventSources in one thread. They read events, and reconnect with their last event id.

What a connection received is parsed only when it has ended, so that the crowd keeps up with the server on the core
that is left for it.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.sse_client import Ending
from tests.support.sse_parser import BrokenFraming, ChunkedDecoder, EventParser, StreamEvent
from tests.support.wait import eventually

_RETRY = 0.2  # seconds, until the server says otherwise, and after a refused connection


class Connection(NamedTuple):
    """One connection that has ended (or is still open when the crowd is closed). Times are ``time.monotonic()``."""

    port: int
    status: int
    ending: Ending
    began: float
    ended: float
    blocks: list[StreamEvent]
    error: str  # what was wrong with its framing

    @property
    def retry(self) -> int | None:
        """The last ``retry:``, milliseconds."""
        return next((block.retry for block in reversed(self.blocks) if block.retry is not None), None)


class Member:
    """One client."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.connections: list[Connection] = []
        self.last_event_id: str | None = None
        self.socket: socket.socket | None = None
        self.raw = bytearray()
        self.port = 0
        self.began = 0.0

    @property
    def messages(self) -> list[StreamEvent]:
        """Return the published events of all connections that have ended, in the order of arrival."""
        return [block for one in self.connections for block in one.blocks if not block.is_control]

    @property
    def endings(self) -> list[Ending]:
        return [one.ending for one in self.connections]


class Crowd:
    """A context manager; leaving it closes all its connections.

    :param port: the server's, or a function asked before every connection.
    :param target: the request target, or a function of the member's number.
    :param come_back: reconnect after every end, as a browser does; else stay away. Or a function that tells whether a
        member does, as a page decides that closes its EventSource.
    :param receive_buffer: SO_RCVBUF in bytes, for readers that are to be slow.
    """

    def __init__(
        self,
        port: int | Callable[[], int],
        target: str | Callable[[int], str],
        count: int,
        *,
        come_back: bool | Callable[[Member], bool] = True,
        receive_buffer: int | None = None,
    ) -> None:
        self._port: Callable[[], int] = (lambda: port) if isinstance(port, int) else port
        self._target: Callable[[int], str] = (lambda _: target) if isinstance(target, str) else target
        self._come_back: Callable[[Member], bool] = come_back if callable(come_back) else lambda _: bool(come_back)
        self._receive_buffer = receive_buffer
        self.members = [Member(number) for number in range(count)]
        self.attempts: list[float] = []
        self._epoll = select.epoll()
        self._by_fd: dict[int, Member] = {}
        self._due: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)

    # --- for the test ---------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """Return the number of members that have a stream's head and opening."""
        return sum(1 for member in self.members if b"\nretry:" in member.raw[:4096])

    def wait_open(self, timeout: float = 30.0) -> Self:
        """Wait until every member's stream has opened."""
        eventually(lambda: self.open == len(self.members), timeout, lambda: f"{self}", interval=0.05)
        return self

    def wait_ended(self, timeout: float) -> None:
        """Wait until every member has seen the end of a connection."""

        def ended() -> bool:
            return all(member.connections for member in self.members)

        eventually(ended, timeout, lambda: f"{self}", interval=0.05)

    def __enter__(self) -> Self:
        now = time.monotonic()
        self._due = [(now, member.number) for member in self.members]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and close open connections; their blocks are kept, too."""
        self._stop.set()
        self._thread.join(30)
        for member in self.members:
            if member.socket is not None:
                self._ended(member, Ending.OPEN)
        self._epoll.close()
        if self.failure is not None:
            raise self.failure

    def endings(self) -> Counter[str]:
        """Count the ends of all members' connections so far."""
        return Counter(ending.value for member in self.members for ending in member.endings)

    def errors(self) -> list[str]:
        """Return errors in the framing."""
        return [one.error for member in self.members for one in member.connections if one.error]

    def __repr__(self) -> str:
        return f"<Crowd: {self.open} of {len(self.members)} open, ended {dict(self.endings())}, {self.errors()[:3]}>"

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._connect_due()
                for fd, mask in self._epoll.poll(0.02, 1024):
                    self._on_socket(self._by_fd[fd], mask)
        except BaseException as error:
            self.failure = error

    def _connect_due(self) -> None:
        now = time.monotonic()
        started = 0
        while self._due and self._due[0][0] <= now and started < 64:  # the rest next time: reading goes on
            started += 1
            self._connect(self.members[heapq.heappop(self._due)[1]])

    def _connect(self, member: Member) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        member.socket, member.port, member.began = sock, self._port(), time.monotonic()
        member.raw = bytearray()
        self.attempts.append(member.began)
        self._by_fd[sock.fileno()] = member
        self._epoll.register(sock.fileno(), select.EPOLLOUT)
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", member.port))

    def _on_socket(self, member: Member, mask: int) -> None:
        sock = member.socket
        assert sock is not None
        try:
            if mask & select.EPOLLOUT:
                if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, "connect")
                cursor = f"Last-Event-ID: {member.last_event_id}\r\n" if member.last_event_id else ""
                target = self._target(member.number)
                sock.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{cursor}\r\n".encode())
                self._epoll.modify(sock.fileno(), select.EPOLLIN)
                return
            piece = sock.recv(262144)
        except OSError:
            self._ended(member, Ending.RESET)
            return
        if piece:
            member.raw += piece
        else:
            self._ended(member, Ending.CUT)

    def _ended(self, member: Member, ending: Ending) -> None:
        sock = member.socket
        assert sock is not None
        now = time.monotonic()
        del self._by_fd[sock.fileno()]
        self._epoll.unregister(sock.fileno())
        sock.close()
        member.socket = None
        status, blocks, terminated, error = _parse(bytes(member.raw))
        member.raw = bytearray()
        if terminated:
            ending = Ending.TERMINATED
        one = Connection(member.port, status, ending, member.began, now, blocks, error)
        member.connections.append(one)
        for block in blocks:
            if block.id is not None:
                member.last_event_id = block.id
        if not self._stop.is_set() and self._come_back(member):
            retry = _RETRY if one.retry is None else one.retry / 1000
            heapq.heappush(self._due, (now + retry, member.number))


def _parse(raw: bytes) -> tuple[int, list[StreamEvent], bool, str]:
    """Return the status, the blocks, whether the end was clean, and errors in the framing."""
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return 0, [], False, ""
    status = int(head.split(b" ", 2)[1])
    head = head.lower()
    if b"\r\ntransfer-encoding: chunked" not in head:
        length = int(head.partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0] or -1)
        return status, EventParser().feed(body), len(body) == length, ""
    decoder, parser = ChunkedDecoder(), EventParser()
    try:
        blocks = parser.feed(decoder.feed(body))
    except BrokenFraming as error:
        return status, [], False, str(error)
    if decoder.terminated and parser.partial:
        return status, blocks, True, "a block was cut by the end"
    return status, blocks, decoder.terminated, ""


def busiest(moments: list[float], seconds: float) -> int:
    """Return the largest number of these moments within any interval of ``seconds``."""
    moments = sorted(moments)
    first = most = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
