"""Requests a server's probes, and opens streams on it, at a fixed rate while others load it.

Each kind of request has a thread and a schedule of its own. Like the load generator, it times a request from when it
was due, so that one slow answer counts for every request that it delayed.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from bench.peers.base import Running

INTERVAL = 0.025  # seconds between two requests of one kind
CHANNEL = "probed"
TIMEOUT = 20.0  # seconds until a request counts as failed


class Prober:
    """A context manager that sends requests while it is entered."""

    def __init__(self, running: Running, cpu: int) -> None:
        self._stop = threading.Event()
        self._cpu = cpu
        self._took: dict[str, list[float]] = {}
        self._failed: dict[str, int] = {}
        health = running.peer.ready_path if running.health_port is None else "/healthz"
        running.peer.create_channel(running.port, CHANNEL)
        stream = running.peer.target.path.replace("{channel}", CHANNEL)
        wanted = {"main": (running.port, health)}
        if not running.peer.target.lazy_head:  # its head would not arrive
            wanted["open"] = (running.port, stream)
        if running.health_port is not None:
            wanted["health"] = (running.health_port, "/healthz")
        self._threads = [
            threading.Thread(target=self._run, args=(name, port, path), daemon=True)
            for name, (port, path) in wanted.items()
        ]

    def __enter__(self) -> Prober:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 1)

    def _run(self, name: str, port: int, path: str) -> None:
        if self._cpu in os.sched_getaffinity(0):
            os.sched_setaffinity(0, {self._cpu})  # of this thread: the server has its core alone
        took = self._took[name] = []
        self._failed[name] = on_schedule(lambda: ask(port, path), INTERVAL, self._stop, took)

    def metrics(self) -> dict[str, float]:
        """Return the report's metrics (`main_us.p99` and so on), and how many requests failed."""
        found: dict[str, object] = {"probes_failed": sum(self._failed.values())}
        for name, took in self._took.items():
            if took:
                found[f"probe_{name}_us"] = {
                    "count": len(took),
                    **{f"p{q:g}": 1e6 * quantile(took, q / 100) for q in (50, 99)},
                    "max": 1e6 * max(took),
                }
        return found  # type: ignore[return-value]


def on_schedule(work: Callable[[], None], interval: float, stop: threading.Event, took: list[float]) -> int:
    """Do `work` every `interval` seconds until `stop`, and append each time since it was due; return the failures."""
    failed, due = 0, time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        try:
            work()
        except OSError:
            failed += 1
        took.append(time.monotonic() - due)
        due += interval
    return failed


def ask(port: int, path: str) -> None:
    """Connect, send a request, and read the head of a 200; raises OSError otherwise."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                raise ConnectionResetError("closed before its answer")
            head += piece
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise ConnectionError(head[:40].decode("latin-1"))


def quantile(values: list[float], share: float) -> float:
    """Return the value that this share of them does not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
