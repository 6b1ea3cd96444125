"""Publishers and a reader that note when they knew of each event."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self

from sse.events.model import parse_id


class Known(NamedTuple):
    """An event that a client knew of at this time, ns of ``time.monotonic_ns``."""

    at: int
    position: int


def publish(port: int, connections: int, seconds: float) -> list[Known]:
    """Publish on so many connections, one event after the other on each; return what was acknowledged."""
    until = time.monotonic() + seconds

    def run(number: int) -> list[Known]:
        known = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while time.monotonic() < until:
            connection.request("POST", "/events/power", body=f"{number} {len(known)} {'x' * 100}")
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 201, body
            known.append(Known(time.monotonic_ns(), parse_id(json.loads(body)["id"])))
        connection.close()
        return known

    with ThreadPoolExecutor(connections) as pool:
        return [one for found in pool.map(run, range(connections)) for one in found]


class Reader:
    """Reads a stream of the channel, beside the publishers. seen: the events that came."""

    def __init__(self, port: int) -> None:
        self.seen: list[Known] = []
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.sendall(b"GET /events/power HTTP/1.0\r\nHost: x\r\n\r\n")
        self._socket.recv(65536)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        rest = b""
        while data := self._socket.recv(1 << 20):
            now = time.monotonic_ns()
            *blocks, rest = (rest + data).split(b"\n\n")
            for block in blocks:
                if block.startswith(b"id: ") and b"\nevent: " not in block:  # no heartbeat
                    self.seen.append(Known(now, parse_id(block[4:].partition(b"\n")[0].decode())))
