"""A full /dev/shm, at the start or later, costs only metrics. A container's has 64 MB, which its
processes share; a write to a map of a file with holes would end the worker with SIGBUS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from health.metrics.table import ROWS
from tests.live.observe import samples
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

SIZE = "1m"
# A /dev/shm of the server's own, as in a container: mounts in a new mount namespace are seen by nobody else.
SETUP = f"mount -t tmpfs -o size={SIZE} tmpfs /dev/shm && {{ %s; }} && exec {sys.executable} -m gunicorn"
FILL = "dd if=/dev/zero of=/dev/shm/filler bs=4096 2>/dev/null || true"
CONFIG = "-c gunicorn.conf.py wsgi:app"


@contextmanager
def serving(first: str) -> Iterator[Server]:
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("only root can have a /dev/shm of its own")
    command = ("unshare", "-m", "sh", "-c", f"{SETUP % first} {CONFIG}")
    with Server(command=command, WEB_CONCURRENCY=2, SSE_HEARTBEAT=0.3) as server:
        eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 200, 10)
        yield server


def shm(server: Server) -> Path:
    return Path(f"/proc/{server.process.pid}/root/dev/shm")


def fill(server: Server) -> None:
    try:
        (shm(server) / "filler").write_bytes(bytes(4 << 20))
    except OSError:
        pass
    found = os.statvfs(shm(server))
    assert found.f_bavail == 0


def goes_on(server: Server, seconds: float) -> None:
    """Check that streams, publishing and probes work, with the same workers."""
    workers = set(server.worker_pids())
    with SSEClient(server.port, "/events/a") as client:
        until = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until:
            number += 1
            server.publish("a", str(number))
            assert client.next_message().data == str(number)
            for path in ("/healthz", "/readyz", "/metrics"):
                assert server.request("GET", path, port=server.health_port).status == 200
            time.sleep(0.05)
    assert set(server.worker_pids()) == workers
    assert "SIGBUS" not in server.log_text() and "Traceback" not in server.log_text()


def test_a_dev_shm_that_is_full_at_the_start_costs_only_the_metrics_and_logs_one_line() -> None:
    with serving(FILL) as server:
        eventually(lambda: "metrics are off" in server.log_text(), 5)
        goes_on(server, 3)
        assert server.log_text().count("metrics are off") == len(server.worker_pids()), "each worker says so once"
        found = samples(server)
        assert found["health_workers_expected"] == 2, "what needs no file is told"
        assert "sse_events_published_total" not in found


def test_a_dev_shm_that_fills_up_later_loses_no_counts() -> None:
    with serving("true") as server:
        server.publish("a", "first")
        eventually(lambda: samples(server).get("sse_events_published_total") == 1, 5)
        kinds = {f"gauge_live{row.merge}" if row.kind == "gauge" else row.kind for row in ROWS}
        for kind in kinds:  # each worker has all of its files
            eventually(lambda kind=kind: len(list(shm(server).glob(f"headwater-metrics-*/{kind}_sse-*.db"))) == 2, 5)  # type: ignore[misc]
        fill(server)
        goes_on(server, 2)
        assert "metrics are off" not in server.log_text()
        eventually(lambda: samples(server)["sse_events_published_total"] > 1, 5)
        # A worker that is new has no room; what the dead one counted is lost if the master has none either.
        victim = server.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in server.worker_pids() and len(server.worker_pids()) == 2, 10)
        eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 200, 10)
        goes_on(server, 2)
        assert samples(server)["sse_events_published_total"] > 0, "the others go on counting"
