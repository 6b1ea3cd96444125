"""``sse.response``: a view's own stream keeps its greenlet, and has heartbeats, the write time-out and the drain."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.live.observe import RESPONSE_APP, closed, samples, stream_lines
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    notes = tmp_path_factory.mktemp("notes")
    with Server(command=RESPONSE_APP, NOTES=str(notes), SSE_HEARTBEAT=0.4, SSE_WRITE_TIMEOUT=1.0) as server:
        yield server


def notes(server: Server, word: str) -> int:
    """Count the app's notes of this word."""
    path = Path(str(server.env["NOTES"]), word)
    return len(path.read_text().splitlines()) if path.exists() else 0


def line(server: Server, target: str) -> dict[str, str]:
    """Wait for the access log's line about one of the app's streams."""

    def found() -> list[dict[str, str]]:
        return [one for one in stream_lines(server) if one.get("target") == target]

    (only,) = eventually(found, 3, lambda: f"{stream_lines(server)}")
    return only


def test_a_finite_stream_ends_cleanly_with_all_its_events(app: Server, open_stream: OpenStream) -> None:
    target = "/count/500?event=n"
    client = open_stream(app, target)
    assert client.headers["connection"] == "close"
    blocks = client.read_to_end(5)
    assert client.ending is Ending.TERMINATED
    *items, end = blocks
    assert [(block.id, block.event) for block in items] == [(str(number), "n") for number in range(500)]
    assert (end.event, end.data) == ("stream-end", "{}")
    logged = line(app, target)
    assert (logged["reason"], logged["events"]) == ("done", "500")
    assert int(logged["bytes"]) == len(client.body)


def test_a_silent_stream_has_heartbeats_and_is_ended_when_its_client_goes(
    app: Server, open_stream: OpenStream
) -> None:
    before = notes(app, "closed")
    client = open_stream(app, "/silence")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            client.next_event(end - time.monotonic())
        except TimeoutError:
            break
    assert client.comments >= 3  # the opening's, and a heartbeat each 0.4 s
    client.close()
    eventually(lambda: notes(app, "closed") == before + 1, 1.5, "nobody told the iterable")
    assert line(app, "/silence")["reason"] == "client"


def test_an_iterable_that_fails_ends_its_stream_without_telling_why(app: Server, open_stream: OpenStream) -> None:
    client = open_stream(app, "/failure")
    blocks = client.read_to_end(3)
    assert client.ending is Ending.TERMINATED
    assert [block.event for block in blocks] == [None, "error", "stream-end"]
    assert b"hunter2" not in client.body
    assert "hunter2" in app.log_text()
    assert line(app, "/failure")["reason"] == "error"


def test_a_reader_that_stalls_is_closed_after_the_write_timeout(app: Server, open_stream: OpenStream) -> None:
    before = closed(app).get("write-timeout", 0)
    client = open_stream(app, "/endless", receive_buffer=4096)
    began = time.monotonic()
    logged = line(app, "/endless")
    assert logged["reason"] == "write-timeout"
    assert 0.9 < time.monotonic() - began < 4
    assert closed(app)["write-timeout"] == before + 1
    # It was slowed down, not buffered: what it was sent is what the kernel holds.
    assert int(logged["bytes"]) < 2_000_000
    client.read_to_end(5)
    assert not client.ending.clean


def test_other_requests_are_served_beside_many_response_streams(app: Server, open_stream: OpenStream) -> None:
    clients = [open_stream(app, f"/count/100?pause=0.01&size=2000&n={number}") for number in range(30)]
    for _ in range(20):
        began = time.monotonic()
        assert app.request("GET", "/echo").text == "hello\n"
        assert time.monotonic() - began < 1
    for client in clients:
        assert [block.id for block in client.read_to_end(20)[:-1]] == [str(number) for number in range(100)]


def test_a_drain_lets_response_streams_finish_and_ends_endless_ones_at_its_end(
    start_server: StartServer, open_stream: OpenStream, tmp_path: Path
) -> None:
    delay, window = 0.3, 1.5
    server = start_server(
        command=RESPONSE_APP, NOTES=str(tmp_path), SSE_DRAIN_DELAY=delay, SSE_DRAIN_WINDOW=window, SSE_HEARTBEAT=10
    )
    finite = open_stream(server, "/count/10?pause=0.1")
    silent = open_stream(server, "/silence")
    busy = open_stream(server, "/count/100000?pause=0.01")
    assert finite.next_event().id == "0" and busy.next_event().id == "0"
    server.terminate()
    began = time.monotonic()
    assert [block.id for block in finite.read_to_end(5)[:-1]] == [str(number) for number in range(1, 10)]
    assert finite.ending is Ending.TERMINATED
    for client in (silent, busy):
        blocks = client.read_to_end(delay + window + 2)
        assert client.ending is Ending.TERMINATED
        assert blocks[-1].retry is not None and blocks[-1].event is None
        assert time.monotonic() - began > delay + window - 0.3
    assert server.wait(8) == 0
    assert time.monotonic() - began < delay + window + 4.5
    assert notes(server, "closed") == 3
    reasons = sorted(one["reason"] for one in stream_lines(server))
    assert reasons == ["done", "drain", "drain"]


GOING = [pytest.param(SSEClient.close, "client", id="closes"), pytest.param(SSEClient.abort, "reset", id="resets")]


@pytest.mark.parametrize(("go", "reason"), GOING)
def test_the_log_says_how_a_client_left(
    app: Server, open_stream: OpenStream, go: Callable[[SSEClient], None], reason: str
) -> None:
    target = f"/silence?{reason}"
    client = open_stream(app, target)
    go(client)
    assert line(app, target)["reason"] == reason


def test_an_ordinary_answer_has_one_write_timeout_as_a_whole(app: Server, open_stream: OpenStream) -> None:
    """The number of blocks, and how steadily the client takes them, make no difference."""

    def timed_out() -> float:
        return samples(app)['sse_connections_closed_total{reason="write-timeout"}']

    before = timed_out()
    client = open_stream(app, "/large", receive_buffer=65536, headers={"Accept": "*/*"})
    came = 0
    with contextlib.suppress(ConnectionError):
        while data := client.socket.recv(65536):
            came += len(data)
            time.sleep(len(data) / 4_000_000)  # so that it takes six seconds, and each block a moment
    assert came < 400 * 65536
    assert timed_out() == before + 1


def test_an_app_may_take_the_socket_of_an_upgraded_connection(start_server: StartServer, tmp_path: Path) -> None:
    """A websocket's silence is no slow request, and the worker adds nothing to what the app has written."""
    timeout = 0.3
    server = start_server(
        command=RESPONSE_APP,
        NOTES=str(tmp_path),
        SSE_READ_HEADER_TIMEOUT=timeout,
        SSE_READ_TIMEOUT=timeout,
        SSE_DRAIN_DELAY=0,
    )
    request = b"GET /websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(request)
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        time.sleep(3 * timeout)  # it says nothing for longer than a request may
        sock.sendall(b"hello")
        came = b""
        while data := sock.recv(4096):
            came += data
    assert came == b"hellobye"
    assert samples(server)['sse_connections_closed_total{reason="bad-request"}'] == 0
    server.terminate()
    assert server.wait(10) == 0
    assert "Traceback" not in server.log_text()
