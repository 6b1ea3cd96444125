"""A healthy pod stays ready, whatever else its worker waits for: trimming, a disk, an exception."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from sse.events.model import Event, format_id
from sse.log import open_log
from tests.support.server import COMMAND, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

KEPT = 500
CANARY_MAX_AGE = 2.5  # seconds: HEALTH_CANARY_MAX_AGE, half of the default, so that a dead canary shows soon
LONG = 2 * CANARY_MAX_AGE  # a canary that stops is seen in less than this


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    command = (*COMMAND[:-1], "tests.live.waiting_app:app")
    with Server(command=command, SSE_RETAIN_EVENTS=KEPT, HEALTH_CANARY_MAX_AGE=CANARY_MAX_AGE) as running:
        eventually(lambda: readiness(running) == "ok", 10, "it does not become ready")
        yield running


def readiness(server: Server) -> str:
    """Return ``ok``, or what is wrong."""
    return server.request("GET", "/readyz", port=server.health_port, timeout=20).text.strip()


def unready_while(server: Server, seconds: float) -> list[str]:
    """Return the failures that ``/readyz`` reports for so long."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        if (text := readiness(server)) != "ok":
            found.append(text)
        time.sleep(0.1)
    return found


@contextmanager
def repeated(work: Callable[[], object], pause: float) -> Iterator[None]:
    """Repeat ``work`` in a thread, with a pause (seconds) in between."""
    stop, errors = threading.Event(), list[Exception]()

    def run() -> None:
        while not stop.wait(pause):
            try:
                work()
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not errors, errors


def publish_batch(server: Server, events: int, size: int = 1) -> list[str]:
    """Publish events of ``size`` characters to channel ``a``; return their ids."""
    lines = b"\n".join(b'{"channel":"a","data":"%b"}' % (b"x" * size) for _ in range(events))
    answer = server.request("POST", "/events", lines, {"Content-Type": "application/x-ndjson"}, timeout=30)
    assert answer.status == 201, answer
    ids: list[str] = answer.json()["ids"]
    return ids


def held(server: Server) -> int:
    """Count the log's events."""
    with closing(sqlite3.connect(f"file:{server.directory}/h.db?mode=ro", uri=True)) as database:
        (count,) = database.execute("SELECT count(*) FROM events").fetchone()
    return int(count)


def test_a_pod_stays_ready_while_retention_trims_the_log(server: Server) -> None:
    with ExitStack() as publishers:
        for _ in range(3):  # so that there always is something to trim
            publishers.enter_context(repeated(lambda: publish_batch(server, 5), 0.002))
        assert unready_while(server, LONG) == []
        assert held(server) < 20 * KEPT, "and the log is trimmed meanwhile"
    eventually(lambda: held(server) == KEPT, 10, "the rest is trimmed when publishing rests")


def test_a_failing_console_report_costs_only_the_consoles_statistics(server: Server) -> None:
    with SSEClient(server.port, "/events/_stats") as console:
        console.events_until(lambda block: block.event == "stats", 5)
        server.request("POST", "/test/report/fails")
        assert unready_while(server, LONG) == []
        assert server.log_text().count("report failed") == 1, "said once"
        server.request("POST", "/test/report/works")
        console.events_until(lambda block: block.event == "stats", 5)
    before = publish_batch(server, KEPT)
    eventually(lambda: held(server) == KEPT, 10, lambda: f"retention has ended with {before[-1]}")


def test_a_worker_with_a_full_thread_pool_delivers_and_is_ready(server: Server) -> None:
    """Ten reads of the log at a time run in the pool; a resume storm queues thousands."""
    with SSEClient(server.port, "/events/a") as client:
        client.next_event()
        server.request("POST", "/test/full-pool/3.0")
        began = time.monotonic()
        with closing(open_log(f"sqlite:///{server.directory}/h.db", retain_events=KEPT, retain_seconds=60)) as other:
            # As many as the log keeps, from another process: has it been trimmed beyond what the worker had read?
            (*_, last) = other.append([Event("a", "x")] * KEPT)
        client.events_until(lambda block: block.id == format_id(last), 10)
        assert unready_while(server, 1.0) == []
        assert time.monotonic() - began < 3.0, "the pool was full all the time"


def test_a_long_read_transaction_on_the_file_leaves_the_pod_ready(server: Server) -> None:
    """Litestream holds a read transaction open: the write-ahead log grows until that ends, and is then copied."""
    with closing(sqlite3.connect(server.directory / "h.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        for _ in range(40):
            publish_batch(server, 1000, 500)
        reader.execute("COMMIT")
    with repeated(lambda: server.publish("a", "x"), 0.01):
        assert unready_while(server, LONG) == []
    eventually(lambda: held(server) == KEPT, 20, "it is trimmed")
