"""A plain object with the interface of health/source.py, in the place of the service."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class FakeStatus:
    started: bool = True
    draining: bool = False
    tail_age: float = 0.1
    position: int = 1
    streams: dict[str, int] = field(default_factory=lambda: {"live": 3, "lagging": 1})
    hub_alive: bool = True
    append_failed_at: float = 0.0
    runs: int = 0


def opening() -> bytes:
    """The block that a stream opens with: a heartbeat with a retry time."""
    return b"id: 1-0\nretry: 2000\nevent: heartbeat\ndata: %d\n\n" % int(time.time() * 1000)


def heartbeat(age: float = 0.0) -> bytes:
    """A heartbeat block that was made ``age`` seconds ago."""
    return b"id: 1-0\nevent: heartbeat\ndata: %d\n\n" % int((time.time() - age) * 1000)


class FakeSource:
    """Sends its subscribers what ``send`` is given. takeover: False for only the generator path."""

    def __init__(self, takeover: bool = True) -> None:
        self.now = FakeStatus()
        self.takeover = takeover
        self.attached: list[socket.socket] = []
        self.pieces: list[bytes] = []
        self.wake = threading.Condition()
        self.stats = SimpleNamespace(
            opened=5,
            closed=Counter({"client": 2}),
            published=7,
            delivery=SimpleNamespace(bounds=(0.1, 1.0), counts=[1, 2, 3], total=9.5),
            connections={"new": 1, "idle": 2},
        )

    def status(self) -> Any:
        return self.now

    def attach(self, sock: socket.socket, channel: str = "_canary") -> None:
        if not self.takeover:
            raise RuntimeError("this worker does not take sockets over")
        self.attached.append(socket.socket(fileno=sock.detach()))

    def open(self, channel: str = "_canary") -> Iterator[bytes]:
        seen = len(self.pieces)
        while True:
            with self.wake:
                self.wake.wait(0.1)
                new, seen = self.pieces[seen:], len(self.pieces)
            yield b"".join(new)

    def send(self, piece: bytes) -> None:
        for sock in self.attached:
            sock.sendall(piece)
        with self.wake:
            self.pieces.append(piece)
            self.wake.notify_all()

    def close(self) -> None:
        for sock in self.attached:
            sock.close()
        self.attached.clear()

    def __del__(self) -> None:
        self.close()  # a canary may subscribe again before it is stopped
