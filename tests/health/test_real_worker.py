"""Health in the real service: several workers under SIGTERM, and the health port."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import StartServer
from tests.failure_modes.wire import connection, head_of, read_until_quiet
from tests.support.server import Server
from tests.support.wait import eventually


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a worker, so that another one answers."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def readyz(server: Server) -> tuple[int, str]:
    answer = server.request("GET", "/readyz", port=server.health_port)
    return answer.status, answer.text


def test_after_sigterm_both_workers_report_the_pod_as_unready(start_server: StartServer) -> None:
    server = start_server(WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=6, SSE_DRAIN_WINDOW=0)
    eventually(lambda: readyz(server)[0] == 200, 10)
    first, second = server.worker_pids()
    began = time.monotonic()
    server.terminate()
    eventually(lambda: readyz(server)[0] == 503, 1.0, interval=0.005)
    for _ in range(40):
        status, text = readyz(server)
        assert (status, "is draining" in text) == (503, True), text
    for silent in (first, second):
        with stopped(silent):
            assert [readyz(server)[0] for _ in range(5)] == [503] * 5
    assert time.monotonic() - began < 5, "the pod still serves"
    assert server.request("GET", "/healthz", port=server.health_port).status == 200


def test_one_draining_worker_makes_the_pod_unready_until_it_is_replaced(
    start_server: StartServer,
) -> None:
    server = start_server(WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=5, SSE_DRAIN_WINDOW=0)
    eventually(lambda: readyz(server)[0] == 200, 10)
    victim, other = server.worker_pids()
    began = time.monotonic()
    os.kill(victim, signal.SIGTERM)
    own = f"(pid {victim}) is draining"

    def both_know() -> bool:
        # The other worker learns it from the board, which is written twice a second. Before that, the draining one may
        # by chance have given all ten answers.
        return time.monotonic() - began > 1.2 and all(own in readyz(server)[1] for _ in range(10))

    eventually(both_know, 3.0)
    for silent in (victim, other):
        with stopped(silent):
            assert own in readyz(server)[1]
    answers = Counter(readyz(server)[0] for _ in range(20))
    assert answers == {503: 20}
    eventually(lambda: readyz(server)[0] == 200, 15, "not replaced")
    assert victim not in server.worker_pids()


@pytest.mark.parametrize(
    "first_line, status, allow",
    [
        pytest.param("OPTIONS /healthz", 405, "GET, HEAD", id="OPTIONS of a probe"),
        pytest.param("OPTIONS /nowhere", 404, None, id="OPTIONS of nothing"),
        pytest.param("OPTIONS *", 404, None, id="OPTIONS of the server"),
        pytest.param("POST /readyz", 405, "GET, HEAD", id="POST to a probe"),
        pytest.param("DELETE /metrics", 405, "GET, HEAD", id="DELETE of the metrics"),
        pytest.param("GET /nowhere", 404, None, id="an unknown path"),
        pytest.param("GET /healthz/", 404, None, id="a slash too many"),
        pytest.param("GET /", 404, None, id="the console"),
        pytest.param("GET /openapi.json", 404, None, id="the API's description"),
        pytest.param("GET /events/news", 404, None, id="a stream"),
        pytest.param("GET /events/_canary", 404, None, id="the canary's stream"),
        pytest.param("POST /events/news", 404, None, id="publishing"),
    ],
)
def test_the_health_port_answers_probes_and_nothing_else(
    server: Server, first_line: str, status: int, allow: str | None
) -> None:
    with connection(server.health_port) as sock:
        sock.sendall(f"{first_line} HTTP/1.1\r\nHost: pod\r\nConnection: keep-alive\r\n\r\n".encode())
        octets, closed = read_until_quiet(sock)
    head, _, body = octets.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), octets
    headers = head_of(octets)
    assert headers.get("allow") == allow
    assert headers["connection"] == "close"
    assert headers["content-length"] == str(len(body))
    assert headers["cache-control"] in ("no-store", "no-cache")  # the second is the console's
    assert closed, "the answer closes the connection"
