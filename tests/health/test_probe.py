from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from health import probe
from health import probe as module
from health.probe import Dechunk, Failed, Heartbeats, main, split_url
from tests.health.fakes import heartbeat, opening
from tests.support.scripted_server import Script, ScriptedServer

ROOT = Path(__file__).parents[2]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = HEAD + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class OneShotServer(ScriptedServer):
    """In the place of the service."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events/_canary"

    def until_hang_up(self, connection: socket.socket) -> None:
        while connection.recv(1024):
            pass


@pytest.fixture
def server() -> Iterator[OneShotServer]:
    server = OneShotServer()
    yield server
    server.close()


@pytest.mark.parametrize(
    "make_pieces",
    [
        pytest.param(lambda: [CHUNKED, chunk(heartbeat())], id="chunked"),
        pytest.param(lambda: [PLAIN, heartbeat()], id="close-delimited"),
        pytest.param(lambda: [CHUNKED + chunk(b"retry: 9\n\n" + heartbeat())], id="all in one"),
        pytest.param(lambda: [CHUNKED, *(chunk(bytes((b,))) for b in heartbeat())], id="a chunk a byte"),
        pytest.param(
            lambda: [CHUNKED, chunk(heartbeat(age=60)), chunk(heartbeat())],
            id="an old one first, then a fresh one",
        ),
        pytest.param(
            lambda: [HEAD.replace(b"event-stream", b"event-stream; charset=utf-8") + b"\r\n", heartbeat()],
            id="with charset",
        ),
    ],
)
def test_a_fresh_heartbeat_passes(server: OneShotServer, make_pieces: Callable[[], list[bytes]]) -> None:
    def script(connection: socket.socket) -> None:
        for piece in make_pieces():
            connection.sendall(piece)
        server.until_hang_up(connection)

    server.script = script
    began = time.monotonic()
    assert probe.probe(server.url, 5.0, 3.0).startswith("a heartbeat 0.")
    assert time.monotonic() - began < 1.0
    request = server.requests[0].decode()
    assert request.startswith("GET /events/_canary HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "\r\nConnection: close\r\n" in request


def _answer(*pieces: bytes | Callable[[], bytes], hold: bool = True) -> Callable[[OneShotServer], Script]:
    def make(server: OneShotServer) -> Script:
        def script(connection: socket.socket) -> None:
            for piece in pieces:
                connection.sendall(piece if isinstance(piece, bytes) else piece())
            if hold:
                server.until_hang_up(connection)

        return script

    return make


def _drip(server: OneShotServer) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(PLAIN)
        while True:
            connection.sendall(b":\n")
            time.sleep(0.05)

    return script


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(_answer(), "connected, but no answer within 0.4 s", id="silence"),
        pytest.param(_answer(CHUNKED), "the stream opened, but no heartbeat within", id="200 but no events"),
        pytest.param(_drip, "the stream opened, but no heartbeat within", id="a byte now and then"),
        pytest.param(
            _answer(CHUNKED, lambda: chunk(opening())),
            "the stream opened, but no heartbeat within",
            id="only the opening",
        ),
        pytest.param(
            _answer(CHUNKED, lambda: chunk(opening()) + b"0\r\n\r\n", hold=False),
            "the stream ended",
            id="sent away",
        ),
        pytest.param(
            _answer(CHUNKED, lambda: chunk(heartbeat(age=60))),
            "its heartbeat is 60.",
            id="only old heartbeats",
        ),
        pytest.param(_answer(CHUNKED, lambda: chunk(heartbeat(age=-60))), "its heartbeat is -", id="from the future"),
        pytest.param(_answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), "answered 'HTTP/1.1 503", id="a 503"),
        pytest.param(
            _answer(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"),
            "content type 'text/html'",
            id="HTML",
        ),
        pytest.param(_answer(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "answered 'SSH-2.0", id="another protocol"),
        pytest.param(_answer(b"x" * 40000), "bytes of headers", id="headers without end"),
        pytest.param(_answer(PLAIN, b"data:" + b"x" * 90000), "not an event stream", id="a line without end"),
        pytest.param(_answer(hold=False), "closed the connection", id="hung up at once"),
        pytest.param(_answer(CHUNKED, b"0\r\n\r\n", hold=False), "the stream ended", id="a stream that ends"),
        pytest.param(_answer(CHUNKED, heartbeat()), "broken chunked coding", id="chunked announced and not sent"),
        pytest.param(_answer(CHUNKED, b"5\r\nid: 1xx\r\n"), "broken chunked coding", id="a chunk longer than it said"),
    ],
)
def test_anything_else_fails_in_time_with_a_reason(
    server: OneShotServer, make: Callable[[OneShotServer], Script], reason: str
) -> None:
    server.script = make(server)
    began = time.monotonic()
    with pytest.raises(Failed) as failure:
        probe.probe(server.url, 5.0, 0.4)
    assert reason in str(failure.value)
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("size", range(1, 40))
def test_heartbeats_are_found_in_pieces_of_any_size(size: int) -> None:
    stream = b": hi\n\nid: 9-1\nevent: heartbeat\ndata: 1234\n\ndata: 77\n\nevent:heartbeat\r\ndata:5678\r\n\r\n"
    stream = b"id: 9-0\nretry: 2000\nevent: heartbeat\ndata: 99\n\n" + stream + b"event:heartbeat\ndata:98\nretry:5\n\n"
    heartbeats = Heartbeats()
    found = [time for at in range(0, len(stream), size) for time in heartbeats.feed(stream[at : at + size])]
    assert found == [1234, 5678], "an opening, which has a retry, shows no more than that the request was answered"


@pytest.mark.parametrize("size", range(1, 30))
def test_chunks_are_decoded_in_pieces_of_any_size(size: int) -> None:
    wire = chunk(b"event: a\n") + b"A;ext=1\r\n0123456789\r\n" + b"0\r\n\r\n"
    dechunk = Dechunk()
    data = b"".join(dechunk.feed(wire[at : at + size]) for at in range(0, len(wire), size))
    assert (data, dechunk.ended) == (b"event: a\n0123456789", True)


@pytest.mark.parametrize("size", [b"-5", b"+5", b"0x5", b"5_0", b"", b" ", b"g"])
def test_a_chunk_size_has_only_hexadecimal_digits(size: bytes) -> None:
    with pytest.raises(ValueError, match="chunked"):
        Dechunk().feed(size + b"\r\nabcde\r\n")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:8080/events/_canary", ("127.0.0.1", 8080, "/events/_canary")),
        ("http://[::1]:9/x?y=1", ("::1", 9, "/x?y=1")),
        ("http://pod", ("pod", 80, "/")),
    ],
)
def test_urls_are_split(url: str, parts: tuple[str, int, str]) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/events",
        "https://x/",
        "http://",
        "http://x:y/",
        "http://x:0/",
        "http://x:99999/",
        "http://x/\r\nA: b",
    ],
)
def test_an_invalid_url_is_a_usage_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", url]) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--timeout", "x"], ["--timeout"], ["--max-age=0"], ["--max-age", "nan"], ["--verbose"], ["8080"]],
)
def test_wrong_arguments_are_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert (streams.out, "usage:" in streams.err) == ("", True)


def test_without_a_url_the_probe_uses_port(
    server: OneShotServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "PORT", server.url.split(":")[2].split("/")[0])
    server.script = _answer(PLAIN, heartbeat())(server)
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("ok: a heartbeat ")


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        pytest.param({}, "http://127.0.0.1:8080/events/_canary", id="nothing"),
        pytest.param({"PORT": " 9000\n"}, "http://127.0.0.1:9000/events/_canary", id="a port"),
        pytest.param({"PORT": ""}, "http://127.0.0.1:8080/events/_canary", id="an empty port"),
        pytest.param(
            {"PORT": "tcp://10.0.0.7:9000"}, "http://127.0.0.1:8080/events/_canary", id="the URL that Kubernetes sets for a Service"
        ),
        pytest.param({"SCRIPT_NAME": "/live"}, "http://127.0.0.1:8080/live/events/_canary", id="below a prefix"),
        pytest.param({"SSE_URL_PREFIX": "/live/events"}, "http://127.0.0.1:8080/live/events/_canary", id="at another prefix"),
        pytest.param({"SCRIPT_NAME": "/"}, "http://127.0.0.1:8080/events/_canary", id="below no prefix"),
    ],
)
def test_the_default_url_follows_the_servers_environment(
    environment: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "probe", lambda url, *_: asked.append(url) or "yes")
    for name in ("PORT", "SCRIPT_NAME", "SSE_URL_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 0 and asked == [url]


WAYS = [
    pytest.param(["-m", "health.probe"], id="as a module"),
    pytest.param(["health/probe.py"], id="as a file"),
    pytest.param(["-I", "-S", "health/probe.py"], id="without site-packages"),
]


@pytest.mark.parametrize("way", WAYS)
def test_the_command_prints_one_line_and_exits_with_0_or_1(server: OneShotServer, way: list[str]) -> None:
    command = [sys.executable, *way, "--url", server.url, "--timeout"]
    for script, timeout, status, line in (
        (_answer(CHUNKED, chunk(heartbeat())), "10", 0, "ok: a heartbeat"),
        (_answer(CHUNKED), "1", 1, "failed: the stream opened, but no heartbeat within 1 s"),
    ):
        server.script = script(server)
        done = subprocess.run([*command, timeout], cwd=ROOT, capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (status, "")
        assert done.stdout.startswith(line)
        assert done.stdout.count("\n") == 1


@pytest.mark.serial
@pytest.mark.parametrize("way", WAYS)
def test_one_run_costs_at_most_60_ms_of_cpu(server: OneShotServer, way: list[str]) -> None:
    server.script = _answer(CHUNKED, chunk(heartbeat()))(server)
    command = [sys.executable, *way, "--url", server.url]
    costs = []
    for _ in range(9):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=20)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    figures = [f"{1000 * cost:.1f}" for cost in (min(costs), statistics.median(costs), max(costs))]
    print(f"\nCPU ms, min/median/max: {'/'.join(figures)}")
    assert statistics.median(costs) <= 0.060, figures


def test_the_probe_imports_only_itself_and_c_modules() -> None:
    code = (
        "import sys; before = set(sys.modules); import health.probe\n"
        "print(sorted(name for name in set(sys.modules) - before if name[0] != '_'))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ},
    )
    assert done.stdout == "['health', 'health.probe']\n", done.stdout + done.stderr
