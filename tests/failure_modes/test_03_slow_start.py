"""No. 3: no startup probe, and a start that takes longer than the liveness probe waits."""

from __future__ import annotations

from pathlib import Path

from tests.failure_modes.pods import our_pod, plain_pod, serving
from tests.support.kubelet import Kind

SECONDS = 4.0  # in the lab's time: 80 s for the plain pod, 40 s for ours


def test_the_plain_pod_is_killed_before_it_is_up_again_and_again(tmp_path: Path) -> None:
    with plain_pod(tmp_path, patience="none", ready=False, SLOW_START=SECONDS) as pod:
        pod.kubelet.wait_for("Started", 3)
        assert pod.kubelet.count("Ready") == 0
        assert any(event.message.startswith("Back-off") for event in pod.kubelet.events("BackOff"))
        # gunicorn's master listens before its worker has loaded the app: then the connection is accepted by the kernel.
        words = ("Client.Timeout exceeded while awaiting headers", "connect: connection refused")
        assert any(text.rstrip(")").endswith(words) for text in pod.unhealthy(Kind.LIVENESS))


def test_our_pod_has_a_startup_budget_and_comes_up_once(tmp_path: Path) -> None:
    with our_pod(
        tmp_path, command=serving("tests.failure_modes.slow_start:app"), ready=False, SLOW_START=SECONDS
    ) as pod:
        pod.kubelet.wait_for("Ready")
        assert pod.restarts == 0
        assert len(pod.unhealthy(Kind.STARTUP)) > 3, "the start was slow enough to be noticed"
        assert pod.unhealthy() == [], "while it starts nobody else asks"
        liveness = pod.kubelet.spec.probes[Kind.LIVENESS]
        startup = pod.kubelet.spec.probes[Kind.STARTUP]
        assert startup.period * startup.failure_threshold > 4 * liveness.period * liveness.failure_threshold
