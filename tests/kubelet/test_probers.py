"""The probes against servers that answer well or badly."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.kubelet import Exec, HttpGet, Outcome, Result, TcpSocket, run_probe
from tests.support.kubelet.probers import http_probe
from tests.support.scripted_server import ScriptedServer


class Server(ScriptedServer):
    """A server that answers each request with the same pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.pause = 0.0  # between pieces, seconds
        self.script = self._send_pieces

    def _send_pieces(self, connection: socket.socket) -> None:
        for piece in self.pieces:
            connection.sendall(piece)
            self.over.wait(self.pause)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def http(server: Server, timeout: float = 1.0, **values: object) -> Result:
    return run_probe(HttpGet(server.port, **values), timeout, env={}, cwd=Path())  # type: ignore[arg-type]


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("200 OK", Outcome.SUCCESS),
        ("204 No Content", Outcome.SUCCESS),
        ("304 Not Modified", Outcome.SUCCESS),
        ("399 Odd", Outcome.SUCCESS),
        ("400 Bad Request", Outcome.FAILURE),
        ("404 Not Found", Outcome.FAILURE),
        ("503 Service Unavailable", Outcome.FAILURE),
    ],
)
def test_success_is_200_to_399(server: Server, status: str, outcome: Outcome) -> None:
    server.pieces = [answer(status)]
    result = http(server)
    assert result.outcome is outcome
    if outcome is Outcome.FAILURE:
        assert result.message == f"HTTP probe failed with statuscode: {status[:3]}"


def test_each_probe_is_a_connection_of_its_own_with_the_kubelets_headers(server: Server) -> None:
    server.pieces = [answer("200 OK")]
    for _ in range(3):
        http(server, path="/readyz?x=1", headers=(("Accept", ""), ("X-Probe", "yes")))
    assert len(server.requests) == 3
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /readyz?x=1 HTTP/1.1"
    assert "Connection: close" in lines
    assert "User-Agent: kube-probe/1.34" in lines
    assert "X-Probe: yes" in lines
    assert not [line for line in lines if line.startswith("Accept")]


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "outcome", "words"),
    [
        pytest.param([STREAM] + [b"3\r\n:\n\n\r\n"] * 99, Outcome.UNKNOWN, "while reading body", id="a stream"),
        pytest.param([b"HTTP/1.1 200"] + [b" "] * 99, Outcome.FAILURE, "while awaiting headers", id="slow headers"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"] + [b"x"] * 50,
            Outcome.UNKNOWN,
            "while reading body",
            id="a slow body",
        ),
    ],
)
def test_the_time_out_covers_everything_to_the_end_of_the_body(
    server: Server, pieces: list[bytes], outcome: Outcome, words: str
) -> None:
    server.pieces, server.pause = pieces, 0.05
    began = time.monotonic()
    result = http_probe(HttpGet(server.port), timeout=0.4)
    assert 0.35 < time.monotonic() - began < 0.8
    assert result.outcome is outcome
    assert words in result.message


def test_an_answer_cut_in_its_body_is_tried_three_times_without_a_verdict(server: Server) -> None:
    server.pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
    result = http(server)
    assert result.outcome is Outcome.UNKNOWN
    assert result.message.startswith("resulted in failure state: ")
    assert len(server.requests) == 3


def test_no_more_than_10_kb_of_the_body_are_read(server: Server) -> None:
    server.pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * 12_000, b"never"]
    server.pause = 3.0
    began = time.monotonic()
    assert http(server).outcome is Outcome.SUCCESS
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    "garbage",
    [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n"],
)
def test_an_answer_that_is_not_http_is_a_failure(server: Server, garbage: bytes) -> None:
    server.pieces = [garbage]
    assert http(server).outcome is Outcome.FAILURE


@pytest.mark.parametrize(
    ("location", "requests"),
    [
        pytest.param("/next", 11, id="on this host: followed, ten times"),
        pytest.param("http://127.0.0.1:1/", 1, id="another port: a warning, which is a success"),
        pytest.param("https://example.org/", 1, id="another host"),
    ],
)
def test_redirects_are_followed_on_the_same_host_only(server: Server, location: str, requests: int) -> None:
    server.pieces = [answer("302 Found", f"Location: {location}")]
    assert http(server) == Result(Outcome.SUCCESS, "Probe terminated redirects")
    assert len(server.requests) == requests


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


@pytest.mark.parametrize("action", [HttpGet, TcpSocket])
def test_a_refused_connection_is_a_failure(action: Callable[[int], HttpGet | TcpSocket]) -> None:
    result = run_probe(action(closed_port()), 1.0, env={}, cwd=Path())
    assert result.outcome is Outcome.FAILURE
    assert "connection refused" in result.message


@pytest.mark.parametrize("action", [HttpGet, TcpSocket])
def test_a_server_that_does_not_accept_fails_http_and_passes_tcp(
    action: Callable[[int], HttpGet | TcpSocket],
) -> None:
    """Failure mode 1: full worker_connections. A TCP probe sees the kernel's backlog, not the application."""
    with socket.create_server(("127.0.0.1", 0), backlog=5) as listener:
        result = run_probe(action(listener.getsockname()[1]), 0.3, env={}, cwd=Path())
    expected = Outcome.SUCCESS if action is TcpSocket else Outcome.FAILURE
    assert result.outcome is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("print('fine')", Result(Outcome.SUCCESS, "fine"), id="exit status 0"),
        pytest.param(
            "import sys; print('not fine'); sys.exit(1)", Result(Outcome.FAILURE, "not fine"), id="exit status 1"
        ),
        pytest.param("import os; os.abort()", Result(Outcome.FAILURE, ""), id="a crash"),
        pytest.param(
            "import os; print(os.environ['WHO'], os.path.basename(os.getcwd()))",
            Result(Outcome.SUCCESS, "me here"),
            id="the container's environment and directory",
        ),
    ],
)
def test_exec_succeeds_with_exit_status_0(tmp_path: Path, code: str, expected: Result) -> None:
    cwd = tmp_path / "here"
    cwd.mkdir()
    action = Exec((sys.executable, "-I", "-S", "-c", code))
    assert run_probe(action, 5.0, env={**os.environ, "WHO": "me"}, cwd=cwd) == expected


def test_exec_that_takes_too_long_is_a_failure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    action = Exec(("/bin/sh", "-c", f"(sleep 1; touch {mark}) & sleep 30"))
    began = time.monotonic()
    result = run_probe(action, 0.3, env=os.environ, cwd=tmp_path)
    assert result.outcome is Outcome.FAILURE
    assert result.message.startswith("command timed out")
    assert time.monotonic() - began < 1.0
    time.sleep(1.0)  # it must not happen, so there is nothing to wait for
    assert not mark.exists()


def test_exec_of_a_missing_program_is_no_verdict(tmp_path: Path) -> None:
    assert run_probe(Exec(("/nothing",)), 1.0, env={}, cwd=tmp_path).outcome is Outcome.UNKNOWN
