"""A TCP relay between a client and the server: it notes each connection's time and request, and can cut them all."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Self

from tests.support.ports import ReservedPort

_LAST_ID = re.compile(rb"(?im)^last-event-id:[ \t]*([^\r\n]*)|^GET [^ ]*[?&]lastEventId=([^ &]*)")
_PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
# SO_LINGER with no time: close() sends a reset, like a router that forgot the connection.
_AT_ONCE = struct.pack("ii", 1, 0)


class Arrival(NamedTuple):
    """One connection for a stream. at: monotonic seconds; last_event_id: as the request had it, in its header or its
    query; None without."""

    at: float
    last_event_id: str | None


class Proxy:
    """Listens on a free port of 127.0.0.1 and relays to ``port``; a connection is refused when the server refuses.

    url: the stream's, through this relay. page: makes the answer to ``GET /page`` from the stream's target, because a
    browser needs a page of the stream's own origin.
    """

    def __init__(self, port: int, target: str, page: Callable[[str], str] | None = None) -> None:
        self._to = port
        self._page = page(target).encode() if page else b""
        self._reserved = ReservedPort()
        origin = f"http://127.0.0.1:{self._reserved.number}"
        self.url, self.page_url = origin + target, f"{origin}/page"
        self.arrivals: list[Arrival] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", self._reserved.number), backlog=64)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> float:
        """Reset every connection to the client; return when (monotonic seconds)."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for client, server in pairs:
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                client.shutdown(socket.SHUT_RD)     # wakes the thread that reads from it
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
        return time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        self._reserved.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            at = time.monotonic()
            head = b""
            while b"\r\n\r\n" not in head:
                octets = client.recv(65536)
                if not octets:
                    return
                head += octets
            if head.startswith(b"GET /page "):
                client.sendall(_PAGE % (len(self._page), self._page))
                return
            found = _LAST_ID.search(head)
            self.arrivals.append(Arrival(at, (found[1] or found[2]).decode() if found else None))
            try:
                server = socket.create_connection(("127.0.0.1", self._to), timeout=5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                return
            server.settimeout(None)
            with server:
                with self._lock:
                    self._pairs.append((client, server))
                server.sendall(head)
                back = threading.Thread(target=_relay, args=(client, server), daemon=True)
                back.start()
                _relay(server, client)
                for sock in (client, server):
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                back.join(5)


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while octets := source.recv(65536):
            target.sendall(octets)
        target.shutdown(socket.SHUT_WR)
