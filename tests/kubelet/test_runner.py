"""The whole simulator on real processes, with short durations."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubelet import BackOffSpec, Exec, HttpGet, Kind, Kubelet, PodSpec, ProbeSpec, Scale, TcpSocket
from tests.support.ports import ReservedPort
from tests.support.wait import eventually

APP = """
    import http.server, os, signal, sys, threading, time
    flags, port = sys.argv[1], int(sys.argv[2])
    print("begin", os.environ.get("GREETING"), flush=True)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            bad = os.path.exists(os.path.join(flags, "bad" + self.path.replace("/", "-")))
            self.send_response(503 if bad else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    def end(*args):
        print("SIGTERM", flush=True)
        if not os.path.exists(os.path.join(flags, "deaf")):
            os._exit(0)

    signal.signal(signal.SIGTERM, end)
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


class Web:
    """A container with an HTTP server whose answers obey files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = ReservedPort()
        script = directory / "app.py"
        script.write_text(textwrap.dedent(APP))
        self.command = (sys.executable, "-I", "-S", str(script), str(directory), str(self.port.number))

    def spec(self, **values: Any) -> PodSpec:
        def probe(path: str, **numbers: Any) -> ProbeSpec:
            return ProbeSpec(HttpGet(self.port.number, path), **{"period": 2.0, "timeout": 1.0, **numbers})

        spec = PodSpec(
            "pod",
            "web",
            self.command,
            env={"GREETING": "hello"},
            ports={"http": self.port.number},
            probes={
                Kind.STARTUP: probe("/startupz", period=1.0, failure_threshold=60),
                Kind.LIVENESS: probe("/healthz"),
                Kind.READINESS: probe("/readyz", failure_threshold=2),
            },
            grace=1.0,
            back_off=BackOffSpec(0.2, 1.0, 60.0),
        )
        return replace(spec, **values)

    def turn(self, flag: str, on: bool = True) -> None:
        path = self.directory / flag
        path.touch() if on else path.unlink()


@pytest.fixture
def web(tmp_path: Path) -> Any:
    web = Web(tmp_path)
    yield web
    web.port.release()


TENTH = Scale(probes=0.1)


def reasons(kubelet: Kubelet) -> list[str]:
    return [event.reason for event in kubelet.timeline if event.reason != "Unhealthy"]


def test_a_pod_starts_becomes_ready_and_ends_in_its_own_time(web: Web, tmp_path: Path) -> None:
    with Kubelet(web.spec(), tmp_path, TENTH) as kubelet:
        ready = kubelet.wait_for("Ready")
        assert kubelet.ready
        assert ready.at < 5
        kubelet.delete()
        kubelet.wait_ended(5)
        assert reasons(kubelet) == ["Started", "Ready", "Killing", "Exited", "NotReady"]
        assert "begin hello\nSIGTERM\n" in kubelet.output()
        assert (kubelet.restarts, kubelet.pid) == (0, None)


def test_a_pod_whose_readiness_fails_leaves_the_endpoints_and_returns(web: Web, tmp_path: Path) -> None:
    with Kubelet(web.spec(), tmp_path, TENTH) as kubelet:
        kubelet.wait_for("Ready")
        web.turn("bad-readyz")
        kubelet.wait_for("NotReady")
        assert kubelet.count("Unhealthy") >= 2
        unhealthy = kubelet.events("Unhealthy")[-1].message
        assert unhealthy == "Readiness probe failed: HTTP probe failed with statuscode: 503"
        web.turn("bad-readyz", False)
        kubelet.wait_for("Ready", 2)
        assert kubelet.restarts == 0


def test_a_pod_whose_liveness_fails_is_restarted(web: Web, tmp_path: Path) -> None:
    with Kubelet(web.spec(), tmp_path, TENTH) as kubelet:
        kubelet.wait_for("Ready")
        web.turn("bad-healthz")
        kubelet.wait_for("Killing")
        web.turn("bad-healthz", False)
        kubelet.wait_for("Ready", 2)
        assert kubelet.restarts == 1
        assert kubelet.events("Killing")[0].message == "Container web failed liveness probe, will be restarted"
        assert kubelet.output().count("begin hello") == 2


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(web: Web, tmp_path: Path) -> None:
    web.turn("deaf")
    with Kubelet(web.spec(), tmp_path, TENTH) as kubelet:
        kubelet.wait_for("Ready")
        kubelet.delete()
        kubelet.wait_ended(5)
        exited = kubelet.events("Exited")[0]
        assert exited.message == "exit status -9"
        assert exited.at - kubelet.events("Killing")[0].at == pytest.approx(1.0, abs=0.3)


def test_a_crashing_container_backs_off(tmp_path: Path) -> None:
    spec = PodSpec("pod", "web", ("/bin/sh", "-c", "echo crash; exit 3"), back_off=BackOffSpec(0.2, 0.4))
    with Kubelet(spec, tmp_path) as kubelet:
        kubelet.wait_for("Started", 5)
        starts = [event.at for event in kubelet.events("Started")]
        assert [b - a for a, b in zip(starts, starts[1:], strict=False)][1:4] == pytest.approx(
            [0.2, 0.4, 0.4], abs=0.15
        )
        assert kubelet.events("Exited")[0].message == "exit status 3"
        assert kubelet.count("BackOff") >= 3
        assert "crash" in kubelet.describe()


def test_a_missing_command_is_a_crash_not_a_hang(tmp_path: Path) -> None:
    spec = PodSpec("pod", "web", ("/nothing/here",), back_off=BackOffSpec(0.1, 0.1))
    with Kubelet(spec, tmp_path) as kubelet:
        kubelet.wait_for("Started", 3)
        assert "No such file" in kubelet.output()


def test_exec_and_tcp_probes_work_as_well(web: Web, tmp_path: Path) -> None:
    probes = {
        Kind.LIVENESS: ProbeSpec(TcpSocket(web.port.number), period=2.0),
        Kind.READINESS: ProbeSpec(Exec(("/bin/sh", "-c", 'test "$GREETING" = hello')), period=2.0),
    }
    with Kubelet(web.spec(probes=probes), tmp_path, TENTH) as kubelet:
        kubelet.wait_for("Ready")
        assert kubelet.restarts == 0


def test_a_containers_other_processes_end_with_its_main_process(tmp_path: Path) -> None:
    """A container's processes share its process namespace, which ends with the first of them."""
    spec = PodSpec("pod", "web", ("/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; sleep 0.2"))
    with Kubelet(replace(spec, back_off=BackOffSpec(60, 60)), tmp_path) as kubelet:
        kubelet.wait_for("BackOff")
        left = int((tmp_path / "pid").read_text())
        eventually(lambda: not _runs(left), 2.0)


def test_a_failed_test_leaves_no_process_behind(web: Web, tmp_path: Path) -> None:
    web.turn("deaf")
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), Kubelet(web.spec(), tmp_path, TENTH) as kubelet:
        kubelet.wait_for("Ready")
        pid = kubelet.pid
        1 / 0  # noqa: B018
    assert pid is not None
    assert not _runs(pid)
    assert time.monotonic() - began < 5


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie, not yet reaped by its parent, does not run.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
