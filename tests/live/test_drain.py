"""SIGTERM, SIGQUIT and SIGINT cut no stream, spread the reconnects, and end the process in time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.live.crowd import Crowd, busiest
from tests.live.observe import sockets, stream_lines, streams
from tests.live.publisher import Publisher
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

# Seconds from the end of delay and window until the process must be gone; and what a machine that is busy with other
# things may add to that, for two interpreters have to come to their end.
MARGIN, LATE = 2.0, 2.5

OpenStream = Callable[..., SSEClient]


def refuses(port: int) -> bool:
    """Return whether the port refuses connections."""
    with socket.socket() as sock:
        sock.settimeout(2)
        try:
            sock.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        return False


def status(server: Server, path: str, port: int) -> int:
    """Return the answer's status; 0 if there is no answer."""
    with contextlib.suppress(OSError):
        return server.request("GET", path, port=port).status
    return 0


def ended_well(client: SSEClient, deadline: float) -> int:
    """Read a stream to its end, which must be clean, and close it. Return its ``retry:``."""
    blocks = client.read_to_end(deadline)
    assert client.wait_closed(2) is Ending.TERMINATED
    assert blocks and blocks[-1].retry is not None, blocks
    client.close()  # as an EventSource does; whoever does not is waited for a moment
    return blocks[-1].retry


def test_during_the_drain_delay_everything_is_served_and_readiness_fails(
    start_server: StartServer, open_stream: OpenStream
) -> None:
    delay, window, setting = 2.5, 0.5, 1000
    server = start_server(SSE_DRAIN_DELAY=delay, SSE_DRAIN_WINDOW=window, SSE_RETRY=setting)
    old = open_stream(server, "/events/a")
    old.next_event()
    idle = open_stream(server, "/openapi.json", headers={"Accept": "*/*"})
    assert idle.headers["connection"] == "keep-alive"
    assert status(server, "/readyz", server.health_port) == 200

    server.terminate()
    began = time.monotonic()
    eventually(lambda: status(server, "/readyz", server.health_port) == 503, 1.0, "still ready")
    assert status(server, "/readyz", server.port) == 503
    assert status(server, "/healthz", server.health_port) == 200

    answer = server.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    server.publish("a", "in the delay")
    assert old.next_message().data == "in the delay"

    retries = []
    for _ in range(8):
        late = open_stream(server, "/events/a")
        assert late.status == 200 and late.headers["content-type"].startswith("text/event-stream")
        blocks = late.read_to_end(2)
        assert late.ending.clean and late.wait_closed(2).clean
        assert [block.is_opening for block in blocks] == [True]
        retries.append(blocks[-1].retry)
    assert time.monotonic() - began < delay, "too slow a machine to see the delay"
    assert len(set(retries)) > 1, "not randomised: all come back at once"

    assert old.ending is Ending.OPEN
    retries.append(ended_well(old, delay + window + 1))
    assert time.monotonic() - began >= delay
    assert all(retry and setting * 0.5 <= retry <= setting * 1.5 for retry in retries)
    assert idle.wait_closed(2) is Ending.COMPLETE  # an idle connection is let go, too
    assert server.wait(MARGIN + LATE) == 0
    assert time.monotonic() - began < delay + window + MARGIN + LATE
    assert refuses(server.port)


def test_a_drain_ends_once_nothing_is_left(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_DRAIN_DELAY=0.2, SSE_DRAIN_WINDOW=60)
    going = open_stream(server, "/events/a")
    going.next_event()
    server.terminate()
    began = time.monotonic()
    eventually(lambda: refuses(server.port), 3)
    going.close()
    assert server.wait(8) == 0
    assert time.monotonic() - began < 8  # of 60


def test_a_request_in_flight_is_answered_and_kept(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=20, directory=tmp_path)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as begun,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as header,
    ):
        begun.sendall(b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf-")
        header.sendall(b"POST /events/a HTTP/1.1\r\nHost: localhost\r\n")
        eventually(lambda: server.request("GET", "/healthz").status == 200)  # they were accepted before this one
        server.terminate()
        eventually(lambda: refuses(server.port), 3)
        for sock, rest in ((begun, b"whole"), (header, b"Content-Length: 4\r\n\r\nlate")):
            sock.sendall(rest)
            head = sock.recv(65536)
            assert head.startswith(b"HTTP/1.1 201") and b"\r\nConnection: close\r\n" in head
            assert sock.recv(65536) == b""
            time.sleep(0.3)  # several looks at what is left: the other one is still waited for
    assert server.wait(5) == 0
    stored = sqlite3.connect(tmp_path / "h.db")
    with contextlib.closing(stored):
        tables = [row[0] for row in stored.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        dump = "".join(str(row) for table in tables for row in stored.execute(f'SELECT * FROM "{table}"'))
    assert "half-whole" in dump and "late" in dump


def to_master(server: Server) -> None:
    server.terminate()


def to_group(server: Server) -> None:
    """Signal the process group, as ``dumb-init``, ``tini -g`` and systemd do. The master passes it on, so workers get
    it twice."""
    os.killpg(server.pid, signal.SIGTERM)


@pytest.mark.parametrize("send", [pytest.param(to_master, id="to the master"), pytest.param(to_group, id="to the group")])
def test_a_repeated_sigterm_does_not_hurry(
    start_server: StartServer, open_stream: OpenStream, send: Callable[[Server], None]
) -> None:
    delay, window = 0.5, 2.0
    server = start_server(SSE_DRAIN_DELAY=delay, SSE_DRAIN_WINDOW=window)
    clients = [open_stream(server, "/events/a") for _ in range(10)]
    for client in clients:
        client.next_event()
    began = time.monotonic()
    send(server)
    eventually(lambda: status(server, "/readyz", server.health_port) == 503)
    send(server)  # in the delay
    eventually(lambda: refuses(server.port), 4)
    send(server)  # in the window
    for client in clients:
        ended_well(client, delay + window + MARGIN + LATE)
    assert time.monotonic() - began > delay + window * 0.9
    assert server.wait(MARGIN + LATE) == 0


def test_sigttou_drains_one_worker(start_server: StartServer) -> None:
    """After SIGTTOU the master signals one worker each second until it is gone."""
    window = 2.5
    server = start_server(WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=window, SSE_RETRY=100)
    idle = sockets(server)
    oldest = min(idle)
    with Crowd(server.port, "/events/a", 40) as crowd:
        crowd.wait_open()
        moving = sockets(server)[oldest] - idle[oldest]
        server.signal(signal.SIGTTOU)
        began = time.monotonic()
        eventually(lambda: oldest not in server.worker_pids(), window + MARGIN + LATE, "it does not go")
        crowd.wait_open()
    ends = [member.connections[0].ended for member in crowd.members if len(member.connections) > 1]
    assert len(ends) == moving > 0
    assert max(ends) - began > window * 0.9
    assert set(crowd.endings()) == {"terminated", "open"}


HURRIES = [
    pytest.param((signal.SIGTERM, signal.SIGQUIT), id="SIGTERM, then SIGQUIT"),
    pytest.param((signal.SIGTERM, signal.SIGINT), id="SIGTERM, then SIGINT"),
    pytest.param((signal.SIGQUIT,), id="SIGQUIT"),
    pytest.param((signal.SIGINT,), id="SIGINT"),
]


@pytest.mark.parametrize("numbers", HURRIES)
def test_a_hurried_drain_still_ends_streams_cleanly(
    start_server: StartServer, open_stream: OpenStream, numbers: tuple[int, ...]
) -> None:
    server = start_server(SSE_DRAIN_DELAY=30, SSE_DRAIN_WINDOW=30)
    clients = [open_stream(server, f"/events/{number % 3}") for number in range(20)]
    for client in clients:
        client.next_event()
    began = time.monotonic()
    for count, number in enumerate(numbers, 1):
        server.signal(number)
        if count < len(numbers):
            eventually(lambda: status(server, "/readyz", server.health_port) == 503)
            assert clients[0].ending is Ending.OPEN
    for client in clients:
        ended_well(client, 6)
    assert server.wait(8) == 0
    assert time.monotonic() - began < 8  # of 60


def test_a_drain_can_be_hurried_within_its_window(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=60, SSE_IDLE_TIMEOUT=60)
    clients = [open_stream(server, "/events/a") for _ in range(10)]
    for client in clients:
        client.next_event()
    idle = open_stream(server, "/openapi.json", headers={"Accept": "*/*"})
    server.terminate()
    eventually(lambda: refuses(server.port), 3)
    assert idle.wait_closed(3) is Ending.COMPLETE, "an idle connection is let go at once"
    assert Ending.OPEN in {client.ending for client in clients}
    assert status(server, "/healthz", server.health_port) == 200, "health answers to the end"
    began = time.monotonic()
    server.signal(signal.SIGQUIT)
    for client in clients:
        ended_well(client, 6)
    assert server.wait(8) == 0
    assert time.monotonic() - began < 8  # of 60


def test_a_worker_whose_master_is_gone_ends_its_streams_and_itself(
    start_server: StartServer, open_stream: OpenStream
) -> None:
    server = start_server(SSE_DRAIN_DELAY=60, SSE_DRAIN_WINDOW=60)
    clients = [open_stream(server, "/events/a") for _ in range(5)]
    for client in clients:
        client.next_event()
    server.process.kill()
    for client in clients:
        ended_well(client, 8)
    eventually(lambda: not server.pids(), 8)


def test_a_lagging_stream_gets_all_it_is_owed_before_its_end(
    start_server: StartServer, open_stream: OpenStream
) -> None:
    server = start_server(SSE_DRAIN_DELAY=0.5, SSE_DRAIN_WINDOW=2)
    slow = open_stream(server, "/events/a", receive_buffer=4096)
    never = open_stream(server, "/events/a", receive_buffer=4096)
    sent = [f"{number} " + "x" * 10_000 for number in range(150)]
    for data in sent:
        server.publish("a", data)
    eventually(lambda: streams(server, "lagging") == 2)
    server.terminate()
    began = time.monotonic()
    eventually(lambda: refuses(server.port), 3)
    blocks = slow.read_to_end(8)
    assert slow.ending is Ending.TERMINATED
    assert [block.data for block in blocks if not block.is_control] == sent
    assert blocks[-1].retry is not None
    # The one that takes nothing is cut at the end, and resumes elsewhere.
    assert server.wait(8) == 0
    assert time.monotonic() - began < 2.5 + MARGIN + LATE
    with pytest.raises(AssertionError):
        never.events_until(lambda block: block.retry is not None and block.id is None, 5)
    assert sorted(line["reason"] for line in stream_lines(server)) == ["cut", "drain"]


def test_one_worker_of_two_drains_alone(start_server: StartServer) -> None:
    server = start_server(WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=0.2, SSE_DRAIN_WINDOW=0.5, SSE_RETRY=100)
    idle = sockets(server)
    with Crowd(server.port, "/events/a", 40) as crowd:
        crowd.wait_open()
        # How the kernel has shared them out is its own business.
        streams_of = {pid: count - idle[pid] for pid, count in sockets(server).items()}
        first, second = sorted(idle, key=lambda pid: -streams_of[pid])
        before = [server.publish("a", f"before {number}") for number in range(5)]
        os.kill(first, signal.SIGTERM)
        eventually(lambda: first not in server.worker_pids(), 5, "the worker does not end")
        eventually(lambda: len(server.worker_pids()) == 2, 5, "it is not replaced")
        assert second in server.worker_pids()
        crowd.wait_open()
        after = [server.publish("a", f"after {number}") for number in range(5)]
        eventually(lambda: status(server, "/readyz", server.health_port) == 200, 5)
        eventually(lambda: all(after[-1].encode() in member.raw for member in crowd.members), 5)
    assert set(crowd.endings()) == {"terminated", "open"}
    moved = [member for member in crowd.members if len(member.connections) > 1]
    assert len(moved) == streams_of[first]  # those of the other worker noticed nothing
    for member in crowd.members:
        assert [block.id for block in member.messages] == before + after


def test_the_streams_are_ended_evenly_over_the_window(start_server: StartServer) -> None:
    window, streams = 2.5, 400
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=window, SSE_RETRY=500)
    successor = start_server(SSE_LOG=str(server.env["SSE_LOG"]))
    now = [server.port]
    with Crowd(lambda: now[0], "/events/a", streams) as crowd:
        crowd.wait_open()
        now[0] = successor.port
        server.terminate()
        began = time.monotonic()
        crowd.wait_ended(window + 3)
        assert server.wait(MARGIN + LATE) == 0
        assert time.monotonic() - began < window + MARGIN + LATE
        crowd.wait_open()
    ends = [member.connections[0].ended for member in crowd.members]
    assert max(ends) - began > window * 0.8
    even = streams / window
    assert busiest(ends, 1.0) <= 2 * even
    assert busiest(crowd.attempts[streams:], 1.0) <= 2 * even
    retries = {member.connections[0].retry for member in crowd.members}
    assert len(retries) > 100 and all(retry and 250 <= retry <= 750 for retry in retries)
    assert {member.endings[0] for member in crowd.members} == {Ending.TERMINATED}


@pytest.mark.parametrize(
    ("streams", "window"), [pytest.param(400, 1.5, id="400"), pytest.param(2000, 4.0, id="2000", marks=pytest.mark.slow)]
)
def test_nothing_acknowledged_is_lost_when_all_streams_move_to_another_instance(
    start_server: StartServer, streams: int, window: float
) -> None:
    delay = 0.5
    server = start_server(SSE_DRAIN_DELAY=delay, SSE_DRAIN_WINDOW=window, SSE_RETRY=500)
    successor = start_server(SSE_LOG=str(server.env["SSE_LOG"]))
    now = [server.port]
    with Crowd(lambda: now[0], "/events/load", streams) as crowd:
        crowd.wait_open(40)
        with Publisher([server.port, successor.port], "load", every=0.15) as publisher:
            eventually(lambda: len(publisher.acknowledged) >= 5, 10)
            now[0] = successor.port  # a Service would do this during the delay
            server.terminate()
            began = time.monotonic()
            crowd.wait_ended(delay + window + 10)
            assert server.wait(MARGIN + LATE) == 0
            took = time.monotonic() - began
            crowd.wait_open()
            count = len(publisher.acknowledged)
            eventually(lambda: len(publisher.acknowledged) >= count + 5, 10)
        last = publisher.acknowledged[-1].encode()
        eventually(lambda: all(last in member.raw for member in crowd.members), 20, "the last event did not come")
    assert took < delay + window + MARGIN + LATE
    assert crowd.errors() == []
    assert {member.endings[0] for member in crowd.members} == {Ending.TERMINATED}
    assert crowd.endings() == {"terminated": streams, "open": streams}
    even = streams / window
    assert busiest(crowd.attempts[streams:], 1.0) <= 2 * even
    assert publisher.moved  # it did have to
    for member in crowd.members:
        got = [block.id for block in member.messages]
        assert len(set(got)) == len(got), "an event came twice"
        assert got == sorted(got, key=_position)
        assert set(publisher.acknowledged) <= set(got), f"member {member.number} misses acknowledged events"


def _position(name: str | None) -> tuple[int, int]:
    milliseconds, _, number = (name or "").partition("-")
    return int(milliseconds), int(number)
