"""A disk whose syncs are slow or fail: nobody else waits, nothing is delivered before, and nothing is stored after."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from sse.events.model import parse_id
from sse.log import open_log
from tests.power.load import Reader
from tests.support.programs import require_program
from tests.support.server import Server
from tests.support.wait import eventually

SOURCE: Final = Path(__file__).with_name("slow_sync.c")
SLOW: Final = 0.8  # seconds a sync


class Disk:
    """What syncs of the service do."""

    def __init__(self, directory: Path) -> None:
        compiler = require_program("cc", "gcc libc6-dev")
        library = directory / "slow_sync.so"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True, timeout=60)
        self._file = directory / "fault"
        self.env = {"LD_PRELOAD": str(library), "SYNC_FAULT": str(self._file)}

    def does(self, what: str) -> None:
        new = self._file.with_name("next")
        new.write_text(what)
        new.replace(self._file)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def service(disk: Disk, tmp_path: Path) -> Iterator[Server]:
    with Server(SSE_LOG=f"sqlite:///{tmp_path}/log.db?sync=full", **disk.env) as server:
        yield server


def post(port: int, body: str = "x") -> tuple[int, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/events/power", body=body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def took(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def test_publishers_share_a_sync_and_nobody_else_waits_for_it(disk: Disk, service: Server) -> None:
    disk.does(f"sleep {SLOW * 1000:.0f}")
    with ThreadPoolExecutor(16) as pool:
        begun = time.monotonic()
        publishes = [pool.submit(post, service.port) for _ in range(16)]
        waits = []
        while not all(publish.done() for publish in publishes):
            waits.append(took(lambda: service.request("GET", "/healthz")))
        all_took = time.monotonic() - begun
    assert all(publish.result()[0] == 201 for publish in publishes)
    assert SLOW <= all_took < 8 * SLOW, "sixteen publishers do not need sixteen syncs"
    assert len(waits) > 5 and max(waits) < SLOW / 2, "the event loop waited for the disk"


def test_event_is_delivered_after_its_sync_by_every_worker(disk: Disk, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db?sync=full"
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(Server(SSE_LOG=url, **disk.env)) for _ in range(2))
        readers = [stack.enter_context(Reader(server.port)) for server in (one, other)]
        assert post(one.port)[0] == 201  # both follow
        eventually(lambda: all(len(reader.seen) == 1 for reader in readers))
        disk.does(f"sleep {SLOW * 1000:.0f}")
        begun = time.monotonic_ns()
        assert post(one.port)[0] == 201
        eventually(lambda: all(len(reader.seen) == 2 for reader in readers))
        for reader in readers:
            assert reader.seen[1].at - begun >= SLOW * 1e9, "delivered before its sync"
        disk.does("")


def test_nothing_is_stored_after_a_failed_sync_until_all_is_written_again(
    disk: Disk, service: Server, tmp_path: Path
) -> None:
    status, first = post(service.port)
    assert status == 201
    disk.does("fail")
    status, problem = post(service.port)
    assert (status, problem["stored"]) == (503, "unknown")
    for _ in range(3):
        status, problem = post(service.port)
        assert (status, problem["stored"]) == (503, "no"), "a sync that works again proves nothing about the failed one"
    assert service.request("GET", "/events/power", headers={"Accept": "application/json"}).status == 200
    disk.does("")
    status, last = post(service.port)
    assert status == 201
    with contextlib.closing(open_log(f"sqlite:///{tmp_path}/log.db", retain_events=10, retain_seconds=1e6)) as log:
        found = [record.position for record in log.read(["power"], 0, 10, 10_000)]
    assert [parse_id(first["id"]), parse_id(last["id"])] == found


def test_log_is_not_opened_on_a_disk_that_does_not_sync(disk: Disk, tmp_path: Path) -> None:
    disk.does("fail")
    server = Server(SSE_LOG=f"sqlite:///{tmp_path}/log.db?sync=full", **disk.env)
    try:
        server.start(ready=False)
        process = server.process
        eventually(lambda: "I/O error" in server.log_tail(), 20, server.log_tail)
    finally:
        server.close()
    assert process.poll() is not None
