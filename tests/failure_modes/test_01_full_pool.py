"""No. 1: probes on the streams' port, and every connection of the worker's pool is a stream.

``worker_connections`` is a pool per listener. When it is full the worker stops accepting; the kernel does not (its accept
queue), so a probe connects, waits, and times out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.failure_modes.crowd import Crowd
from tests.failure_modes.pods import our_pod, plain_pod
from tests.support.kubelet import Kind
from tests.support.wait import eventually

CLIENTS = 150
POOL = 100  # the plain app's, and ours


@pytest.mark.slow  # the plain app's failure, which no change of ours affects
def test_the_plain_pod_is_restarted_for_ever_because_its_clients_reconnect(tmp_path: Path) -> None:
    with (
        plain_pod(tmp_path, patience="initial delay") as pod,
        Crowd(pod.port, CLIENTS, "/events", reconnect=0.3) as crowd,
    ):
        crowd.wait(lambda crowd: crowd.answered == POOL)
        pod.kubelet.wait_for("Started", 3)
        assert pod.restarts == 2
        assert any("Client.Timeout exceeded while awaiting headers" in text for text in pod.unhealthy(Kind.LIVENESS))
        assert [event.message for event in pod.kubelet.events("Killing")][:2] == [
            "Container plain failed liveness probe, will be restarted",
            "the grace period is over: SIGKILL",
        ], "it could not even end, because of its streams"
        assert crowd.endings("cut") >= POOL


def test_our_pod_stays_healthy_with_full_streams_on_either_port(tmp_path: Path) -> None:
    with (
        our_pod(tmp_path, WORKER_CONNECTIONS=POOL) as pod,
        Crowd(pod.port, CLIENTS, "/events/news", reconnect=0.3) as crowd,
    ):
        crowd.wait(lambda crowd: crowd.answered == CLIENTS)  # a stream that was taken over has left the pool
        seen = pod.kubelet.now
        eventually(lambda: pod.kubelet.now > seen + 4, 10)  # as long as four liveness probes take
        for port in (pod.health_port, pod.port):
            assert [pod.ask("GET", path, port=port).status for path in ("/healthz", "/readyz")] == [200, 200]
        assert pod.restarts == 0
        assert pod.unhealthy() == []
        assert crowd.endings("cut") + crowd.endings("refused") == 0
