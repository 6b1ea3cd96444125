"""Many clients in one thread, each as patient, silent or slow as a test wants."""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from tests.support.wait import eventually

_LAST_ID: Final = re.compile(rb"^id: ?([0-9-]+)\r?$", re.MULTILINE)
_RETRY: Final = re.compile(rb"^retry: ?([0-9]+)\r?$", re.MULTILINE)
_TICK: Final = 0.02  # seconds between two checks for what is due


class Client:
    """One client. Like a browser's EventSource it keeps the last event ID across its connections."""

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.due = 0.0  # when it connects, or sends its next byte
        self.unsent = b""
        self.received = bytearray()  # on this connection
        self.bodies = bytearray()  # on all connections
        self.last_id = b""
        self.connections = 0
        self.endings: list[str] = []
        self.connected_at = 0.0

    @property
    def answered(self) -> bool:
        """Return whether it got the head of an answer on its current connection."""
        return self.sock is not None and b"\r\n\r\n" in self.received

    @property
    def status(self) -> int:
        return int(self.received[9:12] or 0)


class Crowd:
    """``count`` clients that do the same.

    port: on 127.0.0.1.
    target: what they ask for.
    reads: False: they never read, and have small buffers.
    trickle: seconds between two bytes of the request, which never ends; None: send it at once.
    reconnect: seconds after the end of a stream (the server's ``retry:`` wins); None: they do not reconnect.
    """

    def __init__(
        self,
        port: int,
        count: int,
        target: str,
        *,
        reads: bool = True,
        trickle: float | None = None,
        reconnect: float | None = None,
    ) -> None:
        self.port = port
        self.clients = [Client() for _ in range(count)]
        self._target = target
        self._reads = reads
        self._trickle = trickle
        self._reconnect = reconnect
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"crowd {target}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)
        for client in self.clients:
            if client.sock is not None:
                client.sock.close()
        self._selector.close()

    # ── what a test looks at ──────────────────────────────────────────────────────────────────────────────

    @property
    def answered(self) -> int:
        """Return how many have the head of a 200 on their current connection."""
        return sum(client.answered and client.status == 200 for client in self.clients)

    @property
    def open(self) -> int:
        """Return how many have a connection, answered or not."""
        return sum(client.sock is not None for client in self.clients)

    def endings(self, how: str) -> int:
        """Return how many connections ended this way: ``clean``, ``cut``, ``refused``."""
        return sum(client.endings.count(how) for client in self.clients)

    def got(self, text: bytes) -> int:
        """Return how many received this in any of their streams."""
        return sum(text in client.bodies for client in self.clients)

    def wait(self, condition: Callable[[Crowd], bool], timeout: float = 10.0) -> None:
        eventually(lambda: condition(self), timeout, lambda: repr(self))

    def __repr__(self) -> str:
        ends = {how: self.endings(how) for how in ("clean", "cut", "refused")}
        return f"<Crowd of {len(self.clients)}: {self.open} open, {self.answered} answered, endings {ends}>"

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._stop.is_set():
            now = time.monotonic()
            for client in self.clients:
                if client.due and client.due <= now:
                    self._act(client, now)
                elif client.sock is None and not client.endings:
                    self._connect(client)
            for key, events in self._selector.select(_TICK):
                client = key.data
                if client.sock is not key.fileobj:
                    continue
                if events & selectors.EVENT_WRITE:
                    self._send(client)
                if events & selectors.EVENT_READ and client.sock is not None:
                    self._receive(client)

    def _act(self, client: Client, now: float) -> None:
        client.due = 0.0
        if client.sock is None:
            self._connect(client)
        elif client.unsent:  # a slow one's next byte
            with contextlib.suppress(OSError):
                client.sock.send(client.unsent[:1])
            client.unsent = client.unsent[1:] or b"x"
            client.due = now + (self._trickle or 0)

    def _connect(self, client: Client) -> None:
        client.sock = sock = socket.socket()
        client.received.clear()
        client.connections += 1
        if not self._reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", self.port))
        last = b"Last-Event-ID: " + client.last_id + b"\r\n" if client.last_id else b""
        client.unsent = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % (self._target.encode(), last)
        if self._trickle is not None:
            client.unsent = client.unsent[:-2]
        self._selector.register(sock, selectors.EVENT_WRITE, client)

    def _send(self, client: Client) -> None:
        assert client.sock is not None
        if error := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._ended(client, "refused" if error else "cut")
            return
        client.connected_at = time.monotonic()
        if self._trickle is None:
            client.sock.send(client.unsent)  # a hundred bytes into an empty buffer
            client.unsent = b""
        else:
            client.due = time.monotonic()
        if self._reads:
            self._selector.modify(client.sock, selectors.EVENT_READ, client)
        else:
            self._selector.unregister(client.sock)

    def _receive(self, client: Client) -> None:
        assert client.sock is not None
        try:
            piece = client.sock.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            self._ended(client, "cut" if client.received else "refused")
            return
        if not piece:
            clean = client.received.endswith(b"0\r\n\r\n")
            self._ended(client, "clean" if clean else "cut" if client.received else "refused")
            return
        client.received += piece
        client.bodies += piece
        # Searches the whole connection's bytes, so a field split between two pieces is found with the second.
        if ids := _LAST_ID.findall(client.received[-8192:]):
            client.last_id = ids[-1]

    def _ended(self, client: Client, how: str) -> None:
        assert client.sock is not None
        self._selector.unregister(client.sock)
        client.sock.close()
        client.sock = None
        client.endings.append(how)
        if self._reconnect is not None:
            asked = _RETRY.findall(client.received)
            wait = int(asked[-1]) / 1000 if asked else self._reconnect * random.uniform(0.9, 1.1)
            client.due = time.monotonic() + wait
