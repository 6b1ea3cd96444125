"""No. 6: ``200`` from the health route, and no event arrives."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.failure_modes.pods import ROOT, Pod, our_pod, plain_pod, serving
from tests.support.kubelet import Kubelet
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

MAX_AGE = 2.0  # seconds: HEALTH_CANARY_MAX_AGE
SOON = MAX_AGE + 3.0  # seconds until a pod that does not deliver says so


def test_the_plain_pod_stays_ready_when_the_thread_that_delivers_has_died(tmp_path: Path) -> None:
    with plain_pod(tmp_path) as pod, SSEClient(pod.port, "/events") as client:
        pod.ask("POST", "/publish", b'{"data": "one"}')
        assert client.next_message().data == "one"
        pod.ask("POST", "/publish", b"this is not JSON")
        answer = pod.ask("POST", "/publish", b'{"data": "two"}')
        assert answer.status == 204, "it says that all is well"
        with pytest.raises(TimeoutError):
            client.next_message(2.0)  # four liveness and eight readiness probes
        assert pod.probe("/healthz").status == 200
        assert pod.kubelet.count("NotReady") == pod.kubelet.count("Killing") == 0


def unready_since(kubelet: Kubelet) -> int:
    return kubelet.count("NotReady")


def exec_probe(pod: Pod) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{pod.port}/events/_canary"
    command = [sys.executable, "-m", "health.probe", "--url", url, "--timeout", "1.5", "--max-age", "1.4"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


def test_our_pod_reports_that_it_does_not_deliver_and_is_not_restarted(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    with our_pod(
        tmp_path,
        command=serving("tests.failure_modes.faulty:app"),
        FAULTS=str(faults),
        HEALTH_CANARY_MAX_AGE=MAX_AGE,
    ) as pod:
        assert exec_probe(pod).returncode == 0
        # The last one cannot be undone: a dead thread stays dead.
        for fault, check, seen_from_outside in (
            ("hub-stuck", "canary", True),
            ("canary-stale", "canary", True),
            ("tailer-dead", "hub", False),  # the canary's heartbeats come from their own thread, not from the log
        ):
            began = time.monotonic()
            (faults / fault).touch()
            eventually(lambda: pod.probe("/readyz").status == 503, SOON)
            assert time.monotonic() - began < SOON, fault
            assert f"[-]{check} failed" in pod.probe("/readyz").text, fault
            assert pod.probe("/healthz").status == 200, "a restart is not what the kubelet is asked for"
            pod.kubelet.wait_for("NotReady", unready_since(pod.kubelet) or 1)
            if seen_from_outside:
                probe = exec_probe(pod)
                assert probe.returncode == 1, probe.stdout
                (faults / fault).unlink()
                eventually(lambda: pod.probe("/readyz").status == 200, 5)
                eventually(lambda: pod.kubelet.ready, 5)
        assert pod.restarts == 0
