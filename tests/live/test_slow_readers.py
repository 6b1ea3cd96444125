"""Slow readers lag, catch up and lose nothing. Their cost is bounded, and the other streams do not notice them."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import StartServer
from tests.live.observe import resident_bytes, samples, stream_lines, streams
from tests.support.server import ROOT, Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]

WRITE_TIMEOUT = 1.5  # seconds
SMALL = 4096  # bytes: a receive buffer that is full soon (the kernel doubles it)

# What one lagging stream may pin in the worker: the rest of one chunk (sse.fanout.MAX_CHUNK_BYTES) and one event.
CHUNK = 256 * 1024


def publish_many(server: Server, channel: str, count: int, size: int, *, first: int = 0) -> list[str]:
    """Publish numbered events in batches; return their data."""
    sent = [f"{number} ".ljust(size, "x") for number in range(first, first + count)]
    per_batch = max(1, 500_000 // size)
    for begin in range(0, count, per_batch):
        batch = sent[begin : begin + per_batch]
        body = "".join(f'{{"channel":"{channel}","data":"{data}"}}\n' for data in batch)
        answer = server.request("POST", "/events", body, {"Content-Type": "application/x-ndjson"}, timeout=20)
        assert answer.status == 201, answer
    return sent


def numbers(blocks: list[str | None]) -> list[int]:
    return [int((data or "-1").split(" ")[0]) for data in blocks]


def take(client: SSEClient, count: int, timeout: float = 20.0) -> list[int]:
    """Return the numbers of the next events."""
    end = time.monotonic() + timeout
    return numbers([client.next_message(end - time.monotonic()).data for _ in range(count)])


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    """A server without a write time-out."""
    with Server(SSE_WRITE_TIMEOUT=0, SSE_HEARTBEAT=600) as server:
        yield server


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Server]:
    """The same with a tiny window: a lagging stream reads from the log."""
    with Server(SSE_WRITE_TIMEOUT=0, SSE_HEARTBEAT=600, SSE_WINDOW_BYTES=65536) as server:
        yield server


# Events that fill several chunks; many that share one; and one chunk of them that no socket takes whole.
SIZES = [
    pytest.param(100, 6_000, id="small events"),
    pytest.param(5_000, 300, id="middling events"),
    pytest.param(60_000, 30, id="large events"),
]


@pytest.mark.parametrize("memory", ["patient", "forgetful"])
@pytest.mark.parametrize(("size", "count"), SIZES)
def test_a_reader_that_pauses_gets_everything_once_and_in_order(
    request: pytest.FixtureRequest, open_stream: OpenStream, memory: str, size: int, count: int
) -> None:
    server: Server = request.getfixturevalue(memory)
    channel = f"pause-{size}"
    slow = [open_stream(server, f"/events/{channel}", receive_buffer=SMALL) for _ in range(3)]
    old = open_stream(server, f"/events/{channel}", receive_buffer=SMALL, version="1.0")
    brisk = open_stream(server, f"/events/{channel}")
    half = count // 2
    publish_many(server, channel, half, size)
    assert take(brisk, half) == list(range(half))  # it need not wait for the others
    eventually(lambda: streams(server, "lagging") == 4, 3, lambda: f"{samples(server)}")
    publish_many(server, channel, count - half, size, first=half)
    for client in (*slow, old):
        assert take(client, count) == list(range(count))
    assert take(brisk, count - half) == list(range(half, count))
    last = publish_many(server, channel, 1, size, first=count)  # they are live again
    for client in (*slow, old, brisk):
        assert client.next_message().data == last[0]
    eventually(lambda: streams(server, "lagging") == 0, 3)


def test_what_lagging_streams_cost_is_bounded(start_server: StartServer, open_stream: OpenStream) -> None:
    """A queue per stream would hold everything published since."""
    lagging, size = 60, 10_000
    server = start_server(SSE_WRITE_TIMEOUT=0, SSE_WINDOW_BYTES=65536, SSE_HEARTBEAT=600, SSE_RETAIN_EVENTS=1000)
    (worker,) = server.worker_pids()
    publish_many(server, "memory", 1000, size)  # what publishing costs by itself
    before = resident_bytes(worker)
    for batch in range(6):
        for _ in range(lagging // 6):  # not all at once: each is to be stuck in another chunk
            open_stream(server, "/events/memory", receive_buffer=SMALL)
        publish_many(server, "memory", 1000, size, first=batch * 1000)
    eventually(lambda: streams(server, "lagging") == lagging)
    grown = resident_bytes(worker) - before
    assert grown < lagging * (CHUNK + size) + 16_000_000, f"{grown / 1e6:.0f} MB for {lagging} lagging streams"
    assert grown < 6000 * size * lagging / 50  # far from a queue each


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server with a short write time-out."""
    with Server(SSE_WRITE_TIMEOUT=WRITE_TIMEOUT, SSE_HEARTBEAT=600, SSE_RETRY=100) as server:
        yield server


@pytest.mark.parametrize("size", [pytest.param(1000, id="small events"), pytest.param(30_000, id="large events")])
def test_a_reader_that_stalls_is_closed_after_the_write_timeout_and_resumes(
    strict: Server, open_stream: OpenStream, size: int
) -> None:
    channel = f"stall-{size}"
    stalled = open_stream(strict, f"/events/{channel}", receive_buffer=SMALL)
    stalled.next_event()
    sent = 0
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", strict.port, timeout=5)) as publisher:
        while sent % 50 or streams(strict, "lagging") == 0:
            publisher.request("POST", f"/events/{channel}", f"{sent} ".ljust(size, "x"))
            assert publisher.getresponse().read().startswith(b'{"id"')
            sent += 1
            assert sent < 1000
    began = time.monotonic()

    def line() -> dict[str, str] | None:
        return next((one for one in stream_lines(strict) if one["channels"] == channel), None)

    found = eventually(line, WRITE_TIMEOUT * 2, "it is still served")
    assert time.monotonic() - began > WRITE_TIMEOUT * 0.7
    assert found is not None and found["reason"] == "write-timeout"
    # What was in the kernel's hands still arrives; the rest comes to the next connection.
    got = numbers([block.data for block in stalled.read_to_end(5) if not block.is_control])
    assert not stalled.ending.clean
    again = open_stream(strict, f"/events/{channel}", last_event_id=stalled.last_event_id)
    got += take(again, sent - len(got)) if len(got) < sent else []
    assert got == list(range(sent))


# A socket that takes nothing at all of a chunk, not even a part: TCP does that rarely, a socket pair always.
NOTHING_TAKEN = """
from gevent import monkey; monkey.patch_all()
import sys, time, socket, gevent
from sse.events.model import Event
from sse.fanout import Fanout
from sse.streams.group import Subscription
from sse.streams.hub import Hub
from sse.log import open_log
from sse.settings import Settings
from sse.streams.stats import Stats
from sse.streams.stream import Stream

ended = []
settings = Settings.from_mapping({"SSE_WRITE_TIMEOUT": 0.4, "SSE_HEARTBEAT": 600, "SSE_LOG": "memory:"})
log = open_log("memory:", retain_events=10000, retain_seconds=1000)
hub = Hub(log, settings, Stats(), on_close=lambda stream, reason, now: ended.append(reason))
hub.start()
assert hub.wait_ready(3)
fanout = Fanout(hub)
fanout.start()
ours, theirs = socket.socketpair()
group = hub.join(Subscription(frozenset({"a"})))
stream = Stream(group, hub.window.position, now=time.monotonic(), ends_at=float("inf"), client="x")
fanout.adopt(stream, ours.detach())
while stream.state != "lagging":
    log.append([Event("a", "x" * 1000)])
    gevent.sleep(0.001)
assert stream.backlog.rest == b"", "a part was taken: this shows nothing"
gevent.sleep(2)
sys.exit(0 if ended == ["write-timeout"] else f"{stream.state} {ended}")
"""


def test_a_socket_that_takes_nothing_at_all_is_closed_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOTHING_TAKEN], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_trickles_is_not_closed(strict: Server, open_stream: OpenStream) -> None:
    """A little progress is enough: less in a write time-out than the kernel's buffers hold."""
    size, count = 1000, 1200
    slow = open_stream(strict, "/events/trickle", receive_buffer=SMALL)
    publish_many(strict, "trickle", count, size)
    eventually(lambda: streams(strict, "lagging") == 1, 3)
    end = time.monotonic() + WRITE_TIMEOUT * 3
    got: list[int] = []
    while time.monotonic() < end:
        got += take(slow, 2)
        time.sleep(0.1)
    assert slow.ending is Ending.OPEN
    got += take(slow, count - len(got))
    assert got == list(range(count))
    assert not [line for line in stream_lines(strict) if line["channels"] == "trickle"]


@pytest.mark.serial
def test_others_are_served_as_fast_beside_stalled_and_trickling_readers(
    patient: Server, open_stream: OpenStream
) -> None:
    brisk = [open_stream(patient, "/events/beside") for _ in range(20)]

    def slowest(count: int) -> float:
        """Return the 90th percentile of the seconds from a publish to its arrival at all readers."""
        took = []
        for number in range(count):
            began = time.monotonic()
            patient.publish("beside", f"{number} ".ljust(4000, "x"))
            for client in brisk:
                client.next_message()
            took.append(time.monotonic() - began)
        return sorted(took)[int(count * 0.9)]

    alone = slowest(60)
    stalled = [open_stream(patient, "/events/beside", receive_buffer=SMALL) for _ in range(20)]
    for _ in range(40):
        slowest(1)
    eventually(lambda: streams(patient, "lagging") == len(stalled), 3)
    beside = slowest(60)
    assert beside < alone * 2 + 0.05, f"{alone * 1000:.1f} ms alone, {beside * 1000:.1f} ms beside"
