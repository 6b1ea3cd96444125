"""Nothing blocks the event loop: probes and new streams are served beside any crowd.

The bounds are wide, for machines that are busy with other things; benchmarks measure the real figures.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pytest

from bench import load
from bench.probing import quantile
from tests.conftest import StartServer
from tests.support.server import Server
from tests.support.sse_client import SSEClient

pytestmark = pytest.mark.serial
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator needs a C compiler")

# Seconds. The kubelet's default time-out for a probe is 1 s: what is slower counts as a failure.
PROBE_MOST = 1.0


class Probes:
    """Asks ``/healthz`` on both ports, and opens a stream now and then, each from a thread; a context manager.

    It waits between an answer and the next request. The benchmarks' prober keeps to a schedule instead, whatever the
    answers take: there, one hiccup of a busy machine makes dozens late, which is what a benchmark wants to see and a
    bound cannot bear.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        #: seconds that each answer took
        self.main: list[float] = []
        self.health: list[float] = []
        self.opening: list[float] = []
        self.failures: list[str] = []
        work: list[tuple[Callable[[], object], list[float], float]] = [
            (lambda: self._probe(server.port), self.main, 0.02),
            (lambda: self._probe(server.health_port), self.health, 0.02),
            (self._open, self.opening, 0.1),
        ]
        self._threads = [threading.Thread(target=self._run, args=one, daemon=True) for one in work]

    def _probe(self, port: int) -> None:
        answer = self._server.request("GET", "/healthz", port=port, timeout=20)
        assert answer.status == 200, answer

    def _open(self) -> None:
        with SSEClient(self._server.port, "/events/other", timeout=20) as client:
            assert client.next_event(20).id is not None

    def _run(self, work: Callable[[], object], took: list[float], every: float) -> None:
        while not self._stop.wait(every):
            began = time.monotonic()
            try:
                work()
            except Exception as error:
                self.failures.append(repr(error))
            took.append(time.monotonic() - began)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def check(self, queue: float = 0.0) -> None:
        """All were answered, and nearly all well within a probe's time-out. ``queue``: for so many seconds a crowd
        stood in the main port's queue, and who came behind it had to wait. The health port has a queue of its own."""
        assert self.failures == []
        for took, more in ((self.main, queue), (self.health, 0.0)):
            assert len(took) >= 10, "too few to say anything"
            assert quantile(took, 0.95) < PROBE_MOST / 2 + more, self.figures()
            assert max(took) < PROBE_MOST * 1.5 + more, self.figures()
        assert quantile(self.opening, 0.9) < 1 + queue, self.figures()

    def figures(self) -> str:
        """Return the figures in milliseconds, for reports."""
        return ", ".join(
            f"{name} n={len(took)} "
            + " ".join(f"p{share * 100:g} {quantile(took, share) * 1000:.1f}" for share in (0.5, 0.95, 0.99, 1))
            for name, took in (("main", self.main), ("health", self.health), ("opening", self.opening))
        )


def options(server: Server, **more: object) -> list[str]:
    """Return the load generator's options. It sleeps while it waits, to leave the core to the probes."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in {"port": server.port, "sleep": 1, **more}.items()]


@needs_compiler
def test_probes_and_new_streams_are_fast_at_saturation(start_server: StartServer) -> None:
    server = start_server()
    with load.Generator(options(server, streams=600, publish="closed", size=100, seconds=3)) as generator:
        generator.line(40)
        with Probes(server) as probes:
            result = generator.line(40)
    probes.check()
    assert result["events"] > 600
    assert result["gaps"] == result["duplicates"] == result["reordered"] == 0


@needs_compiler
def test_probes_are_fast_while_a_crowd_reconnects_and_catches_up(start_server: StartServer) -> None:
    """After an outage all clients reconnect at once and ask for all that they missed: 400 × 3 MB."""
    server = start_server()
    line = '{{"channel":"bench","data":"{}"}}\n'.format("x" * 1000)
    for _ in range(15):
        answer = server.request("POST", "/events", line * 200, {"Content-Type": "application/x-ndjson"})
        assert answer.status == 201
    target = "/events/bench?since=earliest"
    with (
        Probes(server) as probes,
        load.Generator(
            options(server, streams=400, open_inflight=400, path=target, publish="none", seconds=2)
        ) as generator,
    ):
        began = time.monotonic()
        generator.line(60)
        queue = time.monotonic() - began
        result = generator.line(60)
    assert result["opened"] == 400 and result["closed_early"] == 0
    probes.check(queue)


def test_probes_are_fast_beside_a_client_that_always_has_another_request(start_server: StartServer) -> None:
    server = start_server(SSE_KEEPALIVE_REQUESTS=0)
    stop = threading.Event()

    def hog() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.setblocking(False)
            batch = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
            while not stop.is_set():
                for work in (lambda: sock.send(batch), lambda: sock.recv(1 << 20)):
                    try:
                        work()
                    except BlockingIOError:
                        time.sleep(0.001)

    hogs = [threading.Thread(target=hog, daemon=True) for _ in range(3)]
    for thread in hogs:
        thread.start()
    try:
        with Probes(server) as probes:
            time.sleep(1.5)
    finally:
        stop.set()
        for thread in hogs:
            thread.join(5)
    probes.check()


def test_probes_are_fast_while_large_batches_go_to_many_streams(start_server: StartServer) -> None:
    server = start_server()
    batches = 9  # enough of them that the probes are asked often, also on a machine where nothing else runs
    batch = "".join(f'{{"channel":"c{number % 50}","data":"{number}"}}\n' for number in range(10_000))
    clients = [SSEClient(server.port, f"/events/c{number % 50}") for number in range(100)]
    try:
        with Probes(server) as probes:
            for _ in range(batches):
                answer = server.request(
                    "POST", "/events", batch, {"Content-Type": "application/x-ndjson"}, timeout=20
                )
                assert answer.status == 201
            for client in clients:
                for _ in range(200 * batches):
                    client.next_message(20)
        probes.check()
    finally:
        for client in clients:
            client.close()
