"""A server whose every byte is known: it sends a script to its streams, or relays what it gets by POST.

Faults are ordered by number: `lose = {3}` acknowledges the fourth event and sends it to nobody.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{extra}\r\n"


def stamp(n: int, size: int, *, t: int | None = None) -> str:
    """Return the data of event `n`, exactly `size` bytes, stamped now (or `t` ns since the epoch)."""
    head = f'{{"t":{time.time_ns() if t is None else t},"n":{n},"pad":"'
    return head + "x" * (size - len(head) - 2) + '"}'


def block(data: str, *, id: str = "1-0", line_end: str = "\n") -> bytes:
    """Return one event block."""
    return f"id: {id}{line_end}data: {data}{line_end}{line_end}".encode()


def chunked(piece: bytes) -> bytes:
    """Return one HTTP chunk."""
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


def whole(pieces: list[bytes]) -> list[bytes]:
    """Cut nowhere: all in one write."""
    return [b"".join(pieces)]


def byte_by_byte(pieces: list[bytes]) -> list[bytes]:
    """Cut into writes of one byte."""
    return [bytes([b]) for b in b"".join(pieces)]


def split(size: int) -> Callable[[list[bytes]], list[bytes]]:
    """Cut into writes of `size` bytes."""

    def cut(pieces: list[bytes]) -> list[bytes]:
        everything = b"".join(pieces)
        return [everything[i : i + size] for i in range(0, len(everything), size)]

    return cut


def joined(count: int) -> Callable[[list[bytes]], list[bytes]]:
    """Cut into writes of `count` pieces."""
    return lambda pieces: [b"".join(pieces[i : i + count]) for i in range(0, len(pieces), count)]


class KnownServer:
    """A server with threads and blocking sockets: slow, but easy to trust."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.status = 200
        self.late_by = 0.0  # seconds that a relayed event waits
        self.lose: set[int] = set()
        self.repeat: set[int] = set()
        self.refuse: set[int] = set()
        self.stall_at, self.stall = -1, 0.0
        self.drop_connection_at = -1
        self.answers_per_connection = 1 << 30
        self.forget_on_replay = 0
        self.posted = 0  # events acknowledged
        self.per_channel: Counter[str] = Counter()
        self._script: list[bytes] | None = None
        self._chunked = True
        self._lock = threading.Lock()
        self._requests = 0
        self._events: list[tuple[str, str]] = []
        self._streams: list[tuple[str, socket.socket]] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def send(
        self,
        blocks: Iterable[bytes],
        *,
        cut: Callable[[list[bytes]], list[bytes]] = whole,
        is_chunked: bool = True,
    ) -> None:
        """Send `blocks` to every stream, in writes by `cut`, and end it cleanly."""
        pieces = list(blocks)
        if is_chunked and cut is not byte_by_byte:
            self._script = [chunked(piece) for piece in cut(pieces)] + [b"0\r\n\r\n"]
        elif is_chunked:
            self._script = cut([*(chunked(piece) for piece in pieces), b"0\r\n\r\n"])
        else:
            self._script = cut(pieces)
        self._chunked = is_chunked

    def __enter__(self) -> KnownServer:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # shutdown() wakes the threads that wait in accept() and recv(); close() alone would not
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        for each in (self._listener, *self._sockets):
            each.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        answers = 0
        with contextlib.suppress(OSError), reader:
            while line := reader.readline():
                method, target, _ = line.decode().split(" ")
                headers = {}
                while (header := reader.readline().strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                channel = target.rsplit("/", 1)[1]
                if method == "GET":
                    self._stream(connection, channel, headers)
                    return
                answers += 1
                body = reader.read(int(headers["content-length"]))
                if not self._publish(connection, channel, body, answers == self.answers_per_connection):
                    break
        connection.close()

    def _stream(self, connection: socket.socket, channel: str, headers: dict[str, str]) -> None:
        if self.status != 200:
            connection.sendall(f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        connection.sendall(HEAD.format(extra="Transfer-Encoding: chunked\r\n" if self._chunked else "").encode())
        if self._script is not None:
            for piece in self._script:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            return
        with self._lock:
            if "last-event-id" in headers:
                missed = list(enumerate(self._events))[int(headers["last-event-id"].split("-")[0]) + 1 :]
                for number, (name, data) in missed[self.forget_on_replay :]:
                    if name == channel:
                        connection.sendall(chunked(block(data, id=f"{number}-0")))
            self._streams.append((channel, connection))

    def _publish(self, connection: socket.socket, channel: str, body: bytes, last: bool) -> bool:
        with self._lock:
            number = self._requests
            self._requests += 1
            if number == self.drop_connection_at:
                return False
            if number == self.stall_at:
                time.sleep(self.stall)
            if number in self.refuse:
                connection.sendall(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 2\r\n\r\nno")
                return True
            for data in body.decode().splitlines():
                self._relay(channel, data)
            ending = "Connection: close\r\n" if last else ""
            connection.sendall(f"HTTP/1.1 201 Created\r\n{ending}Content-Length: 2\r\n\r\nok".encode())
        return not last

    def _relay(self, channel: str, data: str) -> None:
        assert len(data) == self.size
        number = json.loads(data)["n"]
        position = len(self._events)
        self._events.append((channel, data))
        self.posted += 1
        self.per_channel[channel] += 1
        if self.late_by:
            time.sleep(self.late_by)
        times = 0 if number in self.lose else 2 if number in self.repeat else 1
        for name, stream in list(self._streams):
            for _ in range(times if name == channel else 0):
                with contextlib.suppress(OSError):  # a stream that the generator closed
                    stream.sendall(chunked(block(data, id=f"{position}-0")))
