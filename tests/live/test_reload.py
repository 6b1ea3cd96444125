"""SIGHUP, and workers that die: clients move to the new workers, and the pod stays ready."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.conftest import StartServer
from tests.live.crowd import Crowd
from tests.live.observe import access_log, closed, samples, sockets
from tests.support.resuming_client import ResumingClient
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]


class Prober:
    """Requests a path again and again, as a kubelet does; a context manager."""

    def __init__(self, server: Server, path: str, port: int) -> None:
        self._server, self._path, self._port = server, path, port
        self._stop = threading.Event()
        #: (``time.monotonic()``, status or what went wrong)
        self.answers: list[tuple[float, int | str]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            began = time.monotonic()
            try:
                outcome: int | str = self._server.request("GET", self._path, port=self._port).status
            except OSError as error:
                outcome = repr(error)
            self.answers.append((began, outcome))

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def after(self, moment: float) -> set[int | str]:
        return {outcome for began, outcome in self.answers if began >= moment}


def reload(server: Server) -> tuple[list[int], list[int]]:
    """Send SIGHUP, and wait until the new workers run. Return the old pids and the new ones."""
    old = server.worker_pids()
    server.signal(signal.SIGHUP)

    def new_run() -> list[int] | None:
        new = [pid for pid in server.worker_pids() if pid not in old]
        running = samples(server).get('health_workers{state="running"}', 0)
        return new if len(new) == len(old) and running == len(old) else None

    new = eventually(new_run, 10, lambda: server.log_tail())
    assert new is not None
    return old, new


def test_a_reload_moves_the_streams_gently_and_loses_nothing(start_server: StartServer) -> None:
    window = 1.5
    # A delay of its own would be longer than this test: whoever has been replaced does not wait it out.
    server = start_server(SSE_DRAIN_DELAY=20, SSE_DRAIN_WINDOW=window, SSE_RETRY=100)
    with (
        Prober(server, "/readyz", server.health_port) as ready,
        Prober(server, "/openapi.json", server.port) as pages,
        Crowd(server.port, "/events/a", 50) as crowd,
    ):
        crowd.wait_open()
        sent = [server.publish("a", "before")]
        began = time.monotonic()
        old, new = reload(server)
        running = time.monotonic()
        sent.append(server.publish("a", "in between"))
        early = sum(1 for member in crowd.members if member.connections)
        assert early < 50, "they were all thrown out at once"
        eventually(lambda: server.worker_pids() == new, window + 6, "the old worker does not end")
        assert time.monotonic() - began < 15, "it waited for the delay"
        crowd.wait_open()
        sent.append(server.publish("a", "after"))
        eventually(lambda: all(sent[-1].encode() in member.raw for member in crowd.members), 5)
    assert crowd.endings() == {"terminated": 50, "open": 50}
    for member in crowd.members:
        assert [block.id for block in member.messages] == sent
    # Unready until the new worker's first canary; which of the two answers in that second is left to chance.
    assert ready.after(began) <= {200, 503}
    again = next(moment for moment, outcome in ready.answers if moment > running and outcome == 200)
    assert again < running + 3
    assert ready.after(again + 1) == {200}
    assert pages.after(0) == {200}, "a reload refuses nobody"
    assert closed(server)["drain"] == 50
    assert "Traceback" not in server.log_text()



def test_a_second_reload_and_a_stop_work_after_the_first(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_DRAIN_DELAY=0.2, SSE_DRAIN_WINDOW=0.3)
    for _ in range(2):
        stream = open_stream(server, "/events/a")
        old, new = reload(server)
        assert stream.read_to_end(6)[-1].retry is not None
        assert stream.ending is Ending.TERMINATED
        stream.close()
        eventually(lambda old=set(old): not old & set(server.worker_pids()), 6)  # type: ignore[misc]
        assert server.worker_pids() == new
    stream = open_stream(server, "/events/a")
    server.terminate()
    stream.read_to_end(5)
    assert stream.ending is Ending.TERMINATED
    stream.close()
    assert server.wait(8) == 0


def test_sigterm_during_a_reload_is_obeyed_at_once(start_server: StartServer, open_stream: OpenStream) -> None:
    """gunicorn's master waits for the old workers before it handles signals: the pod would be killed meanwhile."""
    delay, window = 0.5, 3.0
    server = start_server(SSE_DRAIN_DELAY=delay, SSE_DRAIN_WINDOW=window)
    streams = [open_stream(server, "/events/a") for _ in range(20)]
    reload(server)
    while len(streams) < 40:
        late = open_stream(server, "/events/a")
        if "content-length" not in late.headers:  # not one that the old worker sent away
            streams.append(late)
    server.terminate()
    began = time.monotonic()
    assert server.wait(2 * (delay + window) + 4) == 0
    assert time.monotonic() - began < delay + window + 3
    for stream in streams:
        stream.read_to_end(1)
        assert stream.ending is Ending.TERMINATED


def test_a_reload_can_be_hurried(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=60)
    streams = [open_stream(server, "/events/a") for _ in range(10)]
    reload(server)
    server.signal(signal.SIGQUIT)
    began = time.monotonic()
    assert server.wait(8) == 0
    assert time.monotonic() - began < 8  # of 60
    for stream in streams:
        stream.read_to_end(1)
        assert stream.ending is Ending.TERMINATED


def test_a_worker_that_is_killed_is_replaced_and_its_clients_resume(start_server: StartServer) -> None:
    server = start_server(WEB_CONCURRENCY=2, SSE_RETRY=100)
    idle = sockets(server)
    with Crowd(server.port, "/events/a", 40) as crowd:
        crowd.wait_open()
        streams_of = {pid: count - idle[pid] for pid, count in sockets(server).items()}
        victim, other = sorted(idle, key=lambda pid: -streams_of[pid])
        sent = [server.publish("a", f"before {number}") for number in range(20)]
        os.kill(victim, signal.SIGKILL)
        sent += [server.publish("a", f"meanwhile {number}") for number in range(20)]
        eventually(lambda: len(server.worker_pids()) == 2 and victim not in server.worker_pids(), 5)
        crowd.wait_open()
        sent += [server.publish("a", f"after {number}") for number in range(20)]
        eventually(lambda: all(sent[-1].encode() in member.raw for member in crowd.members), 5)
    moved = [member for member in crowd.members if len(member.connections) > 1]
    assert len(moved) == streams_of[victim]
    assert other in server.worker_pids()
    for member in crowd.members:
        assert [block.id for block in member.messages] == sent


def test_a_worker_that_hangs_is_replaced_and_its_clients_resume(
    start_server: StartServer,
) -> None:
    """The worker must feed gunicorn's watchdog while it drains, but not while its loop is stuck."""
    server = start_server("--timeout", "2", SSE_RETRY=100, SSE_DRAIN_DELAY=3, SSE_DRAIN_WINDOW=0)
    (stuck,) = server.worker_pids()
    with ResumingClient(server.port, "/events/a", timeout=10) as client:
        client.wait_connected()
        os.kill(stuck, signal.SIGSTOP)
        eventually(lambda: stuck not in server.worker_pids(), 8, "the watchdog sleeps")
        eventually(lambda: client.connections >= 2, 8)
        name = server.publish("a", "x")
        client.wait_for(lambda one: name in one.ids)
        server.terminate()  # a drain that is longer than the watchdog's patience
        began = time.monotonic()
        assert server.wait(8) == 0
        assert time.monotonic() - began >= 3
    assert "WORKER TIMEOUT" in server.log_text()
    assert server.log_text().count("WORKER TIMEOUT") == 1


ENDS = [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGINT, id="SIGINT")]


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_while_the_worker_boots_is_not_lost(number: int) -> None:
    server = Server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0)
    try:
        server.start(ready=False)
        server.wait_for_log("Booting worker")
        server.signal(number)
        began = time.monotonic()
        assert server.wait(10) == 0
        assert time.monotonic() - began < 5, "it took the graceful time-out"
        assert access_log(server) == []
    finally:
        server.close()
