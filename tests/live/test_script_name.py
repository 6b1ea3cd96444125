"""SCRIPT_NAME tells gunicorn that a proxy serves the app below a path. Probes do not use that proxy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.live.observe import samples
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient

PROBES = ("/healthz", "/livez", "/readyz", "/startupz")


@pytest.fixture(scope="module", params=["/live", "/live/"])
def mounted(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server below a prefix. ``/livez`` begins with ``/live``, but is not below it."""
    with Server(SCRIPT_NAME=request.param) as server:
        yield server


def test_probes_on_the_health_port_answer_with_and_without_the_prefix(mounted: Server) -> None:
    for path in (*PROBES, "/metrics"):
        for target in (path, f"/live{path}"):
            for _ in range(3):  # the same head again is not parsed again
                answer = mounted.request("GET", target, port=mounted.health_port)
                assert answer.status == 200, (target, answer)
    assert mounted.request("GET", "/events/a", port=mounted.health_port).status == 404
    assert mounted.request("POST", "/live/events/a", "x", port=mounted.health_port).status == 404


def test_streams_and_publishing_are_below_the_prefix_and_nowhere_else(mounted: Server) -> None:
    with SSEClient(mounted.port, "/live/events/a") as stream:
        assert stream.status == 200
        for text in ("one", "two", "three"):
            assert mounted.request("POST", "/live/events/a", text).status == 201
            assert stream.next_message().data == text
    lines = b'{"channel": "a", "data": "x"}'
    batch = mounted.request("POST", "/live/events", lines, {"Content-Type": "application/x-ndjson"})
    assert batch.status == 201
    assert mounted.request("GET", "/live/readyz").status == 200
    for method, path in (("GET", "/events/a"), ("POST", "/events/a"), ("GET", "/livez"), ("GET", "/liveevents/a")):
        assert mounted.request(method, path, "x").status == 404, path
    assert "Error handling" not in mounted.log_text()
    closed = samples(mounted)
    assert closed['sse_connections_closed_total{reason="bad-request"}'] == 0
    assert closed['sse_connections_closed_total{reason="error"}'] == 0


def test_the_exec_probe_asks_below_the_prefix(mounted: Server) -> None:
    env = os.environ | {"PORT": str(mounted.port), "SCRIPT_NAME": str(mounted.env["SCRIPT_NAME"])}
    command = [sys.executable, "-m", "health.probe"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout[:3]) == (0, "ok:"), done
