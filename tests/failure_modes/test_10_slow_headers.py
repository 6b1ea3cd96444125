"""No. 10: clients that send their request a byte at a time until every connection is taken ("slowloris").

gunicorn has one timer, ``keepalive``, for waiting and for reading the header. Behind a load balancer it is a minute or
more, and each such client holds a place that long.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.failure_modes.crowd import Crowd
from tests.failure_modes.pods import our_pod, plain_pod
from tests.support.kubelet import Kind
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

ATTACKERS = 120
POOL = 100
EVERY = 0.5  # seconds a byte


def test_the_plain_pod_is_restarted_because_of_clients_without_a_request(tmp_path: Path) -> None:
    with plain_pod(tmp_path) as pod, Crowd(pod.port, ATTACKERS, "/", trickle=EVERY, reconnect=0.1):
        pod.kubelet.wait_for("Killing")
        assert any("Client.Timeout exceeded" in text for text in pod.unhealthy(Kind.LIVENESS))


def test_our_pod_ends_them_after_the_header_time_out_and_serves_others_meanwhile(tmp_path: Path) -> None:
    with (
        our_pod(tmp_path, WORKER_CONNECTIONS=POOL, SSE_READ_HEADER_TIMEOUT=1) as pod,
        SSEClient(pod.port, "/events/news") as before,
        Crowd(pod.port, ATTACKERS, "/", trickle=EVERY, reconnect=0.1) as attackers,
    ):
        attackers.wait(lambda crowd: crowd.endings("refused") > ATTACKERS)  # each was closed, most reconnected
        for number in range(3):
            began = time.monotonic()
            assert pod.ask("POST", "/events/news", b"%d" % number, timeout=10).status == 201
            assert time.monotonic() - began < 5, "a place becomes free within the header time-out"
            assert before.next_message().data == str(number)
        seen = pod.kubelet.now
        eventually(lambda: pod.kubelet.now > seen + 2, 5)
        assert pod.unhealthy() == []
        assert pod.restarts == 0
        assert pod.metric('sse_connections_closed_total{reason="read-header-timeout"}') >= ATTACKERS
