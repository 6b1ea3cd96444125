"""Publishers in processes of their own, so that they publish at full speed while a test's clients read.

Each sends one event after the other on a kept-alive connection, with its own ``Idempotency-Key``, and sends it again
until it is acknowledged, whatever happens to the server. So at the end its ledger is exactly what the log must have:
every event once, in the publisher's order.

As a program: ``python -m tests.support.publisher PORT NAME SEED CHANNEL,… TYPE,…`` writes a line for each acknowledged
event; after SIGTERM it finishes the current event and ends.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from tests.support.wait import eventually

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds without an acknowledgement after which a publisher gives up


class Published(NamedTuple):
    """An acknowledged event. ``at``: unix seconds of the acknowledgement."""

    id: str
    channel: str
    event: str | None
    data: str
    at: float

    @property
    def position(self) -> tuple[int, int]:
        """Return a value that sorts like the log."""
        ms, _, n = self.id.partition("-")
        return int(ms), int(n)


class Publishers:
    """Some publisher processes, as a context manager; ``stop`` returns what was acknowledged.

    channels: chosen at random for each event, like its type from ``types`` (empty: none).
    """

    def __init__(
        self, port: int, number: int = 2, *, channels: Sequence[str] = ("a",), types: Sequence[str] = ("",)
    ) -> None:
        self._files: list[IO[bytes]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._acknowledged: list[Published] | None = None
        try:
            for n in range(number):
                ledger = tempfile.TemporaryFile("w+b")
                self._files.append(ledger)
                command = [sys.executable, "-m", "tests.support.publisher", str(port), f"p{n}", str(n)]
                self._processes.append(
                    subprocess.Popen(
                        [*command, ",".join(channels), ",".join(types)],
                        cwd=ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=ledger,
                    )
                )
        except BaseException:
            self._kill()
            raise

    def count(self) -> int:
        """Return the ledgers' size in bytes, which grows with each acknowledgement."""
        return sum(Path(f"/proc/self/fd/{ledger.fileno()}").stat().st_size for ledger in self._files)

    def wait_progress(self, size: int = 10_000, timeout: float = 30.0) -> None:
        """Wait until the ledgers have grown by this many bytes (about 50 an event)."""
        goal = self.count() + size
        eventually(lambda: self.count() >= goal, timeout, "nothing is acknowledged any more")

    def stop(self) -> list[Published]:
        """Let each finish its current event, and return all, in the log's order."""
        if self._acknowledged is None:
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                assert process.wait(PATIENCE + 5) == 0, "a publisher failed; its error is on stderr"
            self._acknowledged = sorted(
                (entry for ledger in self._files for entry in _entries(ledger)), key=lambda entry: entry.position
            )
        return self._acknowledged

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for ledger in self._files:
            ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()


def _entries(ledger: IO[bytes]) -> list[Published]:
    ledger.seek(0)
    entries = []
    for line in ledger.read().decode().splitlines():
        name, channel, event, data, at = line.split(" ")
        entries.append(Published(name, channel, event or None, data, float(at)))
    return entries


# ── the program ────────────────────────────────────────────────────────────────────────────────────────────────


class _Connection:
    """A connection that is opened again when it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send a request, return the answer's status and body. Raises OSError."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=5)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += self._more()
            head, _, body = answer.partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            while len(body) < int(fields[b"content-length"]):
                body += self._more()
            if fields.get(b"connection") == b"close":
                self.close()
            return int(head.split(b" ", 2)[1]), body
        except BaseException:
            self.close()
            raise

    def _more(self) -> bytes:
        assert self._socket is not None
        piece = self._socket.recv(65536)
        if not piece:
            raise ConnectionResetError("the server closed the connection")
        return piece

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def main(port: int, name: str, seed: int, channels: list[str], types: list[str]) -> None:
    """Publish until SIGTERM."""
    stopping = False

    def stop(signum: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    choose, connection, number = random.Random(seed), _Connection(port), 0
    run = f"{name}-{time.time_ns()}"
    while not stopping:
        channel, event = choose.choice(channels), choose.choice(types)
        data = f"{name}-{number}" + "." * choose.choice([0, 0, 100, 400])
        target = f"/events/{channel}" + (f"?event={event}" if event else "")
        request = (
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: {run}-{number}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n{data}"
        ).encode()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                status, body = connection.exchange(request)
            except OSError:
                status, body = 0, b""
            if status == 201:
                break
            # 502 is a proxy's, while nobody is behind it.
            if status not in (0, 502, 503) or time.monotonic() > deadline:
                raise SystemExit(f"publisher {name}: {status} {body!r}")
            time.sleep(0.02)
        position = body.split(b'"', 4)[3].decode()
        sys.stdout.write(f"{position} {channel} {event} {data} {time.time():.6f}\n")
        if number % 20 == 0:
            sys.stdout.flush()
        number += 1
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].split(","), sys.argv[5].split(","))
