"""Long polls on the real worker: they hold no thread, leave when their client does, and do not hold up a drain."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.live.observe import streams
from tests.support.server import Server
from tests.support.wait import eventually

JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(WORKER_CONNECTIONS=400, SSE_WRITE_TIMEOUT=1, SSE_READ_TIMEOUT=1) as running:
        yield running


def page(server: Server, path: str, timeout: float = 70) -> Any:
    answer = server.request("GET", path, headers=JSON, timeout=timeout)
    assert answer.status == 200, answer.body
    return answer.json()


def begin(server: Server, path: str) -> socket.socket:
    """Send a request, and do not wait for its answer."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n".encode())
    return sock


def body(sock: socket.socket) -> Any:
    """Read an answer's body."""
    octets = b""
    while b"}\n" not in octets:
        piece = sock.recv(65536)
        assert piece, octets
        octets += piece
    return json.loads(octets.partition(b"\r\n\r\n")[2])


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def cursor(server: Server, channel: str) -> str:
    return str(page(server, f"/events/{channel}")["next"])


def test_an_event_answers_all_who_wait_for_it_and_nobody_held_a_thread(server: Server) -> None:
    (worker,) = server.worker_pids()
    since = cursor(server, "crowd")
    before = threads(worker)
    with contextlib.ExitStack() as crowd:
        waiting = [crowd.enter_context(begin(server, f"/events/crowd?wait=60&since={since}")) for _ in range(150)]
        waiting += [crowd.enter_context(begin(server, f"/events/cr*?wait=60&since={since}")) for _ in range(40)]
        eventually(lambda: streams(server) == 190, 10, lambda: f"{streams(server)} wait")
        assert threads(worker) <= before + 10, "the pool for work on the log has ten"
        published = server.publish("crowd", "hello")
        for sock in waiting:
            (event,) = body(sock)["events"]
            assert event == {"id": published, "channel": "crowd", "event": None, "data": "hello"}
        eventually(lambda: streams(server) == 0, 5)


def test_a_wait_may_last_longer_than_any_time_out_of_an_answer(server: Server) -> None:
    """SSE_READ_TIMEOUT and SSE_WRITE_TIMEOUT are a second here."""
    since = cursor(server, "slow")
    began = time.monotonic()
    assert page(server, f"/events/slow?wait=3&since={since}")["events"] == []
    assert 2.9 < time.monotonic() - began < 15


def test_a_client_that_leaves_is_not_waited_for(server: Server) -> None:
    since = cursor(server, "left")
    sockets = [begin(server, f"/events/left?wait=60&since={since}") for _ in range(20)]
    eventually(lambda: streams(server) == 20, 10)
    for sock in sockets:
        sock.close()
    eventually(lambda: streams(server) == 0, 5, "their places are still taken")


def test_two_workers_deliver_each_others_events(start_server: StartServer) -> None:
    server = start_server(WEB_CONCURRENCY=2)
    found: list[str] = []
    done = threading.Event()

    def publish() -> None:
        for number in range(200):
            server.publish("shared", str(number))
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    next_ = "earliest"
    try:
        while len(found) < 200:
            got = page(server, f"/events/shared?wait=10&limit=9&since={next_}", timeout=20)
            assert got["reset"] is None and (got["events"] or not done.is_set())
            next_ = got["next"]
            found += [event["data"] for event in got["events"]]
    finally:
        thread.join()
    assert found == [str(number) for number in range(200)]


def test_a_drain_answers_those_who_wait_at_once(start_server: StartServer) -> None:
    server = start_server(SSE_DRAIN_DELAY=5, SSE_DRAIN_WINDOW=5)
    since = cursor(server, "drained")
    with begin(server, f"/events/drained?wait=60&since={since}") as sock:
        eventually(lambda: streams(server) == 1, 10)
        server.terminate()
        began = time.monotonic()
        assert body(sock)["events"] == []
        assert time.monotonic() - began < 3, "before the delay is over"


@pytest.mark.parametrize("server_of", ["gthread", "gevent"])
def test_other_workers_of_gunicorn_serve_long_polls_too(start_server: Callable[..., Server], server_of: str) -> None:
    options = ("--worker-class", server_of, *(("--threads", "6") if server_of == "gthread" else ()))
    server = start_server(*options)
    since = cursor(server, "other")
    with contextlib.ExitStack() as crowd:
        waiting = [crowd.enter_context(begin(server, f"/events/other?wait=60&since={since}")) for _ in range(4)]
        eventually(lambda: streams(server) == 4, 10)
        if server_of == "gthread":  # two of its threads stay free
            answer = server.request("GET", f"/events/other?wait=60&since={since}", headers=JSON)
            assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
        server.publish("other", "x")
        for sock in waiting:
            assert [event["data"] for event in body(sock)["events"]] == ["x"]
