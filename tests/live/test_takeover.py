"""Streams whose sockets the fan-out owns: each end has its reason in the log, and the takeover loses nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.live.observe import RESPONSE_APP, closed, resident_bytes, stream_lines, streams
from tests.live.vanishing import FarClient
from tests.support.server import COMMAND, Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

# Seconds within which a peer's going must be noticed, with nothing being sent to it.
NOTICED = 1.0

OpenStream = Callable[..., SSEClient]


@pytest.fixture(scope="module")
def quiet() -> Iterator[Server]:
    """A server that sends no heartbeats and ends no stream while these tests run."""
    with Server(SSE_HEARTBEAT=600, SSE_WRITE_TIMEOUT=0, SSE_RETAIN_EVENTS=100_000) as server:
        yield server


def flood(client: SSEClient) -> None:
    client.socket.settimeout(0.5)
    with contextlib.suppress(TimeoutError, ConnectionError):
        for _ in range(1000):
            client.socket.send(b"x" * 65536)


def ask_again_and_close(client: SSEClient) -> None:
    client.socket.sendall(b"GET /events/other HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.1)  # the two arrive apart
    client.close()


GOING = [
    pytest.param(SSEClient.close, "client", id="closes"),
    pytest.param(SSEClient.half_close, "client", id="half-closes"),
    pytest.param(SSEClient.abort, "reset", id="resets"),
    pytest.param(ask_again_and_close, "client", id="sends a request and closes"),
    pytest.param(flood, "flooded", id="floods"),
]


@pytest.mark.parametrize(("go", "reason"), GOING)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_client_that_leaves_is_noticed_at_once_and_the_log_says_how(
    quiet: Server, open_stream: OpenStream, go: Callable[[SSEClient], None], reason: str, version: str
) -> None:
    channel = f"going-{reason}-{version}-{go.__name__}"
    client = open_stream(quiet, f"/events/{channel}", version=version)
    client.next_event()
    before = closed(quiet).get(reason, 0)
    began = time.monotonic()
    go(client)

    def lines() -> list[dict[str, str]]:
        return [line for line in stream_lines(quiet) if line["channels"] == channel]

    eventually(lines, NOTICED + (0.6 if reason == "flooded" else 0), "nobody noticed")
    (line,) = lines()
    assert line["reason"] == reason
    assert float(line["duration"]) <= time.monotonic() - began + 1
    assert closed(quiet)[reason] == before + 1


def test_streams_of_a_crowd_that_leaves_are_closed_within_a_second(quiet: Server, open_stream: OpenStream) -> None:
    before = streams(quiet)
    clients = [open_stream(quiet, f"/events/crowd-{number % 7}") for number in range(70)]
    assert streams(quiet) == before + 70
    for client in clients:
        client.close()
    eventually(lambda: streams(quiet) == before, NOTICED)


def test_bytes_that_a_client_sends_during_a_stream_are_discarded(quiet: Server, open_stream: OpenStream) -> None:
    client = open_stream(quiet, "/events/chatty")
    client.next_event()
    before = resident_bytes(quiet.worker_pids()[0])
    for _ in range(40):  # twice what it may say in one breath, in many
        client.socket.sendall(b"x" * 1000)
        time.sleep(0.02)
    quiet.publish("chatty", "still here")
    assert client.next_message().data == "still here"
    assert resident_bytes(quiet.worker_pids()[0]) < before + 2_000_000


def test_a_stream_over_http_1_0_is_delimited_by_its_end(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.2, SSE_HEARTBEAT=0.3)
    client = open_stream(server, "/events/old", version="1.0")
    assert "transfer-encoding" not in client.headers and client.headers["connection"] == "close"
    opening = client.next_event()
    assert opening.id and opening.retry
    sent = [server.publish("old", f"line\n{number}") for number in range(50)]
    got = [client.next_message() for _ in sent]
    assert [event.id for event in got] == sent
    assert [event.data for event in got] == [f"line\n{number}" for number in range(50)]
    heartbeat = client.next_event(3)
    assert heartbeat.is_heartbeat and heartbeat.id == sent[-1]
    server.terminate()
    blocks = client.read_to_end(5)
    assert client.ending is Ending.CLOSED and not client.partial
    assert blocks[-1].retry is not None
    client.close()
    assert server.wait(8) == 0


def test_nothing_is_lost_or_doubled_where_replay_becomes_live(quiet: Server, open_stream: OpenStream) -> None:
    """Streams open at random moments during publishing: from the beginning, from an id, or now."""
    stop = threading.Event()
    sent: list[str] = []

    def publish() -> None:
        while not stop.is_set():
            sent.append(quiet.publish("seam", f"{len(sent)} " + "x" * 300))

    publisher = threading.Thread(target=publish)
    publisher.start()
    opened: list[tuple[str, str | None, SSEClient]] = []
    try:
        eventually(lambda: len(sent) > 100, 10)
        for number in range(60):
            kind = ("earliest", "cursor", "now")[number % 3]
            cursor = sent[len(sent) // 2] if kind == "cursor" else None
            query = "?since=earliest" if kind == "earliest" else ""
            opened.append((kind, cursor, open_stream(quiet, f"/events/seam{query}", last_event_id=cursor)))
    finally:
        stop.set()
        publisher.join(10)
    for kind, cursor, client in opened:
        opening = client.next_event()
        assert opening.id is not None
        if kind == "earliest":
            expected = sent
        elif kind == "cursor":
            expected = sent[sent.index(cursor or "") + 1 :]
        else:  # its opening tells where "now" was
            expected = [name for name in sent if _position(name) > _position(opening.id)]
        got = [block.id for block in client.events_until(lambda block: block.id == sent[-1], 10)] if expected else []
        assert got == expected, kind


def _position(name: str) -> tuple[int, int]:
    milliseconds, _, number = name.partition("-")
    return int(milliseconds), int(number)


@pytest.mark.parametrize(
    ("command", "target"),
    [
        pytest.param(COMMAND, "/events/far", id="taken over"),
        pytest.param(RESPONSE_APP, "/silence", id="a view's own stream"),
    ],
)
def test_a_stream_whose_peer_vanishes_without_a_fin_is_closed(
    far: FarClient, start_server: StartServer, tmp_path: Path, command: tuple[str, ...], target: str
) -> None:
    heartbeat, write_timeout = 0.5, 0.7
    server = start_server(
        command=command,
        HOST="0.0.0.0",
        SSE_AUTH="none",
        SSE_HEARTBEAT=heartbeat,
        SSE_WRITE_TIMEOUT=write_timeout,
        NOTES=str(tmp_path),
    )
    far.stream(server.port, target)
    far.vanish()
    assert stream_lines(server) == []
    bound = heartbeat + 4 * write_timeout  # a heartbeat, our write time-out, and TCP_USER_TIMEOUT of three of these
    eventually(lambda: stream_lines(server), bound + 2, "it is still there")
    (line,) = stream_lines(server)
    assert line["reason"] in ("reset", "write-timeout")
    assert streams(server) == 0


@pytest.fixture
def far() -> Iterator[FarClient]:
    """A client behind a cable that the test can cut."""
    with FarClient.or_skip() as client:
        yield client
