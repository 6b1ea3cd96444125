"""Clients come and go in a few minutes as in hours: the worker must not leak anything."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.live.observe import RESPONSE_APP, closed, descriptors, resident_bytes, streams
from tests.support.server import Server
from tests.support.sse_client import SSEClient, StreamEnded
from tests.support.wait import eventually

SECONDS = float(os.environ.get("CHURN_SECONDS", "1800"))
ACTORS = 12
CHANNELS = ["a", "b", "c", "d"]
WRITE_TIMEOUT = 1.0
SETTINGS: dict[str, Any] = {
    "SSE_WRITE_TIMEOUT": WRITE_TIMEOUT,
    "SSE_HEARTBEAT": 1,
    "SSE_MAX_STREAM_AGE": 8,
    "SSE_RETAIN_EVENTS": 2000,
    "SSE_WINDOW_BYTES": 1_000_000,
    "SSE_RETRY": 50,
    "LOG_LEVEL": "warning",
}


class Figures(NamedTuple):
    """What the worker has when nobody is there. Without the log's own files: its connections are pooled, and the pool
    has as many as were ever in use at once."""

    descriptors: int
    greenlets: int
    resident: int

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.greenlets} greenlets, {self.resident / 1e6:.1f} MB resident"


class Churn:
    """Clients that behave well or badly."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._published = 0

    def run(self, seconds: float) -> None:
        self._stop.clear()
        threads = [threading.Thread(target=self._act, args=(number,), daemon=True) for number in range(ACTORS)]
        threads.append(threading.Thread(target=self._publish, daemon=True))
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)

    def _publish(self) -> None:
        while not self._stop.is_set():
            self._published += 1
            size = random.choice((10, 200, 3000))
            with contextlib.suppress(OSError):
                self.server.publish(random.choice(CHANNELS), f"{self._published} ".ljust(size, "x"))
            self._stop.wait(0.005)

    def _act(self, seed: int) -> None:
        chance = random.Random(seed)
        acts: list[Callable[[random.Random], None]] = [
            self.read_and_close,
            self.read_and_abort,
            self.half_close,
            self.resume,
            self.stall,
            self.old_protocol,
            self.many_channels,
            self.lease,
            self.half_a_header,
            self.half_a_body,
            self.second_request,
            self.own_stream,
            self.own_stream_cut,
            self.malformed_cursor,
        ]
        while not self._stop.is_set():
            act = chance.choice(acts)
            try:
                act(chance)
            except (OSError, StreamEnded):
                pass  # a lease, a time-out, a refused connection: all in the day's work
            except Exception as error:
                self.failures.append(f"{act.__name__}: {error!r}")
            self.done[act.__name__] += 1

    def _read(self, client: SSEClient, seconds: float) -> None:
        end = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < end:
                client.next_event(end - time.monotonic())

    def _open(self, chance: random.Random, **options: object) -> SSEClient:
        query = chance.choice(("", "", "?since=earliest", "?event=message"))
        return SSEClient(self.server.port, f"/events/{chance.choice(CHANNELS)}{query}", **options)  # type: ignore[arg-type]

    # --- the acts -------------------------------------------------------------------------------------------

    def read_and_close(self, chance: random.Random) -> None:
        with self._open(chance) as client:
            self._read(client, chance.random())

    def read_and_abort(self, chance: random.Random) -> None:
        client = self._open(chance)
        with contextlib.closing(client):
            self._read(client, chance.random() / 2)
            client.abort()

    def half_close(self, chance: random.Random) -> None:
        with self._open(chance) as client:
            client.half_close()
            client.read_to_end(3)

    def resume(self, chance: random.Random) -> None:
        """Three connections, each from where the one before ended; numbers may be missing (other channels) but never
        come twice or out of order."""
        channel, cursor, last = chance.choice(CHANNELS), None, -1
        for _ in range(3):
            with SSEClient(self.server.port, f"/events/{channel}", last_event_id=cursor) as client:
                end = time.monotonic() + chance.random() / 2
                with contextlib.suppress(TimeoutError):
                    while time.monotonic() < end:
                        event = client.next_event(end - time.monotonic())
                        if not event.is_control:
                            number = int((event.data or "").split(" ")[0])
                            assert number > last, f"{number} after {last}"
                            last = number
                cursor = client.last_event_id

    def stall(self, chance: random.Random) -> None:
        with self._open(chance, receive_buffer=2048):
            self._stop.wait(WRITE_TIMEOUT * chance.choice((0.5, 3)))

    def old_protocol(self, chance: random.Random) -> None:
        with self._open(chance, version="1.0") as client:
            self._read(client, chance.random() / 2)

    def many_channels(self, chance: random.Random) -> None:
        # A subscription of its own each time: groups come and go.
        names = "&".join(f"channel={name}" for name in (*CHANNELS, f"x{chance.randrange(10**9)}"))
        with SSEClient(self.server.port, f"/events?{names}") as client:
            self._read(client, chance.random() / 2)

    def lease(self, chance: random.Random) -> None:
        if chance.random() < 0.1:
            with self._open(chance) as client:
                self._read(client, 10)

    def half_a_header(self, chance: random.Random) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=3) as sock:
            sock.sendall(b"GET /events/a HTTP/1.1\r\nHost: loc")

    def half_a_body(self, chance: random.Random) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=3) as sock:
            sock.sendall(b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
            if chance.random() < 0.5:
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1000)

    def second_request(self, chance: random.Random) -> None:
        with self._open(chance) as client:
            client.socket.sendall(b"GET /events/b HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self._read(client, 0.1)

    def own_stream(self, chance: random.Random) -> None:
        with SSEClient(self.server.port, "/count/20?pause=0.01") as client:
            assert len(client.read_to_end(5)) == 20

    def own_stream_cut(self, chance: random.Random) -> None:
        client = SSEClient(self.server.port, chance.choice(("/silence", "/count/1000?pause=0.01", "/failure")))
        with contextlib.closing(client):
            client.next_event(0.2)
            client.abort()

    def malformed_cursor(self, chance: random.Random) -> None:
        cursor = chance.choice(("nonsense", "1-1", "99999999999999-0"))
        with SSEClient(self.server.port, "/events/a", last_event_id=cursor) as client:
            self._read(client, 0.1)

    # --- what is left -----------------------------------------------------------------------------------------

    def quiet(self) -> Figures:
        """Wait until nobody is left, then take the least of many looks: a look is a request itself, and what clients
        left half done ends by its timers."""
        (worker,) = self.server.worker_pids()
        eventually(lambda: streams(self.server) == 0, 15, lambda: f"{streams(self.server)} streams are left")
        looks = []
        for _ in range(40):
            greenlets = int(self.server.request("GET", "/greenlets").text)
            looks.append(Figures(descriptors(worker, without="/h.db"), greenlets, resident_bytes(worker)))
            time.sleep(0.2)
        return Figures(*map(min, zip(*looks, strict=True)))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_a_long_churn_leaks_nothing(tmp_path: Path) -> None:
    with Server(command=RESPONSE_APP, NOTES=str(tmp_path), **SETTINGS) as server:
        churn = Churn(server)
        churn.run(max(10.0, min(60.0, SECONDS / 6)))  # the window fills, allocators find their size
        before = churn.quiet()
        churn.run(SECONDS)
        after = churn.quiet()
        print(f"\n{SECONDS:g} s, {sum(churn.done.values())} acts: {dict(churn.done)}")
        print(f"closed: {closed(server)}\nbefore: {before}\nafter:  {after}")
        assert churn.failures == []
        assert after.descriptors <= before.descriptors
        assert after.greenlets <= before.greenlets
        assert after.resident < before.resident + 8_000_000
        # What /failure raises is its own.
        tracebacks = [line for line in server.log_text().splitlines() if "Traceback" in line and "hunter2" not in line]
        assert tracebacks == []
