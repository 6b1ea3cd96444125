"""A settings file that changes while streams are open, as the kubelet changes it, with two workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.observe import access_log, closed, samples, sockets
from tests.support.configmap import ConfigMapVolume
from tests.support.server import Answer, Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]

WORKERS = 2
KEY, NEW_KEY, BAD_KEY = "hunter1-hunter1-hunter1", "hunter2-hunter2-hunter2", "hunter3"


class Configured:
    """A server with a settings file."""

    def __init__(self, server: Server, volume: ConfigMapVolume) -> None:
        self.server = server
        self._volume = volume

    def lines(self, text: str) -> list[str]:
        """Return the log's lines about the file that contain this text."""
        return [
            json.loads(line)["message"]
            for line in self.server.log_text().splitlines()
            if line.startswith("{") and str(self._volume.file) in line and text in line
        ]

    def change(self, text: str, said: str = "has changed") -> None:
        """Change the content, and wait until each worker has logged the result."""
        before = len(self.lines(said))
        self._volume.write(text)
        eventually(lambda: len(self.lines(said)) == before + WORKERS, 10, self.server.log_tail)

    def replace_worker(self) -> int:
        """Kill a worker; return the pid of its replacement."""
        old = self.server.worker_pids()
        os.kill(old[0], signal.SIGKILL)

        def successor() -> int:
            new = [pid for pid in self.server.worker_pids() if pid not in old]
            running = samples(self.server).get('health_workers{state="running"}', 0)
            return new[0] if new and running == WORKERS else 0

        return eventually(successor, 15, self.server.log_tail)


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Configured]:
    volume = ConfigMapVolume(tmp_path / "config", f"SSE_HEARTBEAT=60\nSSE_PUBLISH_KEY={KEY}\n")
    env = {"SSE_CONFIG_FILE": str(volume.file), "SSE_HEARTBEAT": 30, "SSE_RETRY": 1234, "SSE_DRAIN_DELAY": 0}
    with Server(WEB_CONCURRENCY=WORKERS, **env) as server:
        yield Configured(server, volume)


def publish(server: Server, key: str = KEY, data: bytes = b"x", **headers: str) -> Answer:
    return server.request("POST", "/events/a", data, {"Authorization": f"Bearer {key}", **headers})


def is_let_in(server: Server) -> bool:
    """Return whether a stream was let in: a refusal has a Content-Length."""
    with SSEClient(server.port, "/events/a") as client:
        return "content-length" not in client.headers


def requests(server: Server) -> list[dict[str, str]]:
    return [line for line in access_log(server) if line["kind"] == "request"]


def everywhere(check: Callable[[], object], times: int = 12) -> set[object]:
    """Return a check's results over so many connections that each worker has had one (except once in 2000 runs)."""
    return {check() for _ in range(times)}


def test_streams_stay_open_while_the_settings_change_around_them(
    configured: Configured, open_stream: OpenStream
) -> None:
    server, key = configured.server, f"SSE_PUBLISH_KEY={KEY}\n"
    idle, streams = sockets(server), [open_stream(server, "/events/a")]
    while any(count <= idle[pid] for pid, count in sockets(server).items()):
        assert len(streams) < 200, "one worker gets them all"
        streams += [open_stream(server, "/events/a") for _ in range(10)]
    assert {stream.next_event().retry for stream in streams} == {1234}

    # Sixty seconds of silence become one, for those who wait already.
    configured.change(f"{key}SSE_HEARTBEAT=1\nSSE_RETRY=77\nSSE_CORS_ORIGINS=https://page.example")
    for stream in streams:
        assert stream.next_event(4).is_heartbeat
    with SSEClient(server.port, "/events/a") as late:
        assert late.next_event().retry == 77
    answers = everywhere(lambda: publish(server, Origin="https://page.example").headers["Access-Control-Allow-Origin"])
    assert answers == {"https://page.example"}

    # One wrong value: nothing of the file counts, and no secret shows.
    configured.change(f"SSE_MAX_EVENT_BYTES=1\nSSE_PUBLISH_KEY={BAD_KEY}", "is refused")
    assert everywhere(lambda: publish(server, data=b"four").status) == {201}
    assert BAD_KEY not in server.log_text() and KEY not in server.log_text()
    eventually(lambda: samples(server)["sse_settings_refused"] == WORKERS, 5)

    # Limits that the open streams are beyond: they stay, and the next one is sent away.
    configured.change(f"{key}SSE_MAX_STREAMS=1\nSSE_MAX_EVENT_BYTES=3")
    assert everywhere(lambda: is_let_in(server)) == {False}
    assert everywhere(lambda: publish(server, data=b"four").status) == {413}
    configured.change(f"{key}SSE_MAX_STREAMS_PER_IP=1\nSSE_PUBLISH_RATE=1")
    assert everywhere(lambda: is_let_in(server)) == {False}, "those who came before the limit are counted"
    assert everywhere(lambda: publish(server).status) == {201, 429}

    eventually(lambda: samples(server)["sse_settings_refused"] == 0, 5)

    # The level, in both directions.
    configured.change(f"{key}LOG_LEVEL=warning")
    quiet = len(requests(server))
    assert everywhere(lambda: server.request("GET", "/openapi.json").status) == {200}
    assert len(requests(server)) == quiet > 0
    configured.change(f"SSE_PUBLISH_KEY={NEW_KEY}")
    assert everywhere(lambda: publish(server, NEW_KEY).status) == {201}
    assert everywhere(lambda: publish(server, KEY).status) == {201}, "five minutes for those who have the old one yet"
    assert everywhere(lambda: publish(server, BAD_KEY).status) == {401}
    assert len(requests(server)) > quiet

    publish(server, NEW_KEY, b"the last")
    for stream in streams:
        while stream.next_message().data != "the last":
            pass
        assert stream.ending is Ending.OPEN
    while streams:
        streams.pop().close()
    eventually(lambda: samples(server)['sse_streams{state="live"}'] == 0, 5)
    configured.change(f"SSE_PUBLISH_KEY={NEW_KEY}\nSSE_MAX_STREAMS_PER_IP=1")
    assert is_let_in(server), "those who have gone are counted no longer"


def test_lower_retention_and_write_timeout_take_effect(configured: Configured, open_stream: OpenStream) -> None:
    server, key = configured.server, f"SSE_PUBLISH_KEY={KEY}\n"
    stalled = open_stream(server, "/events/a", receive_buffer=4096)
    other = open_stream(server, "/events/b")
    for _ in range(100):
        publish(server, data=b"x" * 60_000)
    eventually(lambda: samples(server)['sse_streams{state="lagging"}'] == 1, 5)
    configured.change(f"{key}SSE_WRITE_TIMEOUT=0.5\nSSE_RETAIN_EVENTS=10")
    eventually(lambda: closed(server) == {"write-timeout": 1}, 5, lambda: repr(closed(server)))
    path = str(server.env["SSE_LOG"]).removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as log:
        eventually(lambda: log.execute("SELECT count(*) FROM events").fetchone() == (10,), 10, interval=0.2)
    assert stalled.ending is other.ending is Ending.OPEN  # as far as they have read
    assert other.next_event().is_opening


def test_a_setting_that_needs_a_restart_waits_for_it_also_in_a_replaced_worker(configured: Configured) -> None:
    server = configured.server
    configured.change(f"SSE_PUBLISH_KEY={NEW_KEY}\nSSE_DRAIN_WINDOW=1", "restart is needed for SSE_DRAIN_WINDOW 15 → 1")
    configured.change("SSE_PUBLISH_KEY=\"", "is refused")
    configured.replace_worker()
    assert "the last settings that could be used still count" in server.log_text()
    assert everywhere(lambda: publish(server, NEW_KEY).status) == {201}
    assert len(configured.lines("a restart is needed for SSE_DRAIN_WINDOW 15 → 1")) == WORKERS

    # A reload is a restart of the workers; it must not end the master that has a bad file.
    old = server.worker_pids()
    server.signal(signal.SIGHUP)
    eventually(lambda: len(server.worker_pids()) == WORKERS and not set(old) & set(server.worker_pids()), 15)
    server.wait_for_log("drained in", 5)
    assert everywhere(lambda: publish(server, NEW_KEY).status) == {201}
