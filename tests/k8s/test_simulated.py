"""The Deployment's own command, environment, ports and probes under the simulated kubelet."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.cluster import KEY, QUICK, Cluster
from tests.support.kubelet import Kind, Scale
from tests.support.resuming_client import ResumingClient
from tests.support.wait import eventually

CLIENTS = 12


class Publisher:
    """Publishes one event after the other through the Service, each with its Idempotency-Key, and repeats what was not
    acknowledged, as docs/kubernetes.md tells publishers."""

    def __init__(self, port: int, channel: str, pause: float) -> None:
        self._port, self._channel, self._pause = port, channel, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: list[str] = []
        self.repeats: list[str] = []

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(self._pause):
            number += 1
            for _ in range(50):
                answer = self._once(number)
                if answer is not None:
                    self.acknowledged.append(answer)
                    break
                self._stop.wait(0.05)

    def _once(self, number: int) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": f"event-{number}"}
        try:
            connection.request("POST", f"/events/{self._channel}", str(number), headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.repeats.append(repr(error))
            return None
        finally:
            connection.close()
        if response.status != 201:
            self.repeats.append(f"{response.status} {body[:100]!r}")
            return None
        return str(json.loads(body)["id"])


def _roll(tmp_path: Path, scale: Scale, **env: str) -> None:
    with Cluster(tmp_path, scale, **env) as cluster, contextlib.ExitStack() as stack:
        cluster.start()
        clients = [
            stack.enter_context(ResumingClient(cluster.nginx.port, "/events/orders", timeout=30))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.wait_connected(10)
        with Publisher(cluster.nginx.port, "orders", 0.03) as publisher:
            eventually(lambda: len(publisher.acknowledged) > 20, 20, lambda: repr(publisher.repeats))
            cluster.roll()
            after = len(publisher.acknowledged)
            eventually(lambda: len(publisher.acknowledged) > after + 20, 20, lambda: repr(publisher.repeats))
        last = publisher.acknowledged[-1]
        for client in clients:
            client.wait_for(lambda client: last in client.ids[-50:], 20)
            assert client.failed is None
            assert client.missing(publisher.acknowledged) == []
            assert client.duplicates() == []
            assert client.ids == sorted(client.ids, key=lambda text: tuple(map(int, text.split("-"))))
            assert client.resets == []
            assert all(ending.clean for ending in client.endings), client
        assert sum(client.reconnects for client in clients) >= CLIENTS, "every stream was on a pod that went"
        # Nobody had to publish twice: connections are accepted until the end of the drain delay.
        assert publisher.repeats == []
        for pod in (*cluster.gone, *cluster.pods):
            assert pod.restarts == 0, pod.describe()
        for pod in cluster.gone:
            # It ended on its own, within the grace period.
            assert [event.message for event in pod.events("Exited")] == ["exit status 0"], pod.describe()
            assert pod.count("Killing") == 1, pod.describe()


def test_a_rollout_of_two_pods_behind_nginx_loses_nothing(tmp_path: Path) -> None:
    """Catches: a stream cut instead of ended, a pod that stops accepting before it is out of the endpoints, an event
    between two pods, a drain that is longer than the grace period, buffering in nginx."""
    _roll(tmp_path, QUICK, SSE_DRAIN_DELAY="1", SSE_DRAIN_WINDOW="2", SSE_RETRY="200")


@pytest.mark.slow
def test_a_rollout_in_real_time_with_the_settings_of_the_manifests_loses_nothing(tmp_path: Path) -> None:
    _roll(tmp_path, Scale())


@contextlib.contextmanager
def _streams(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            sock.sendall(b"GET /events/orders HTTP/1.1\r\nHost: x\r\n\r\n")
            opened.append(sock)
        for sock in opened:
            sock.settimeout(15)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        yield opened


def test_a_pod_that_is_full_of_streams_and_of_idle_connections_is_never_restarted(tmp_path: Path) -> None:
    """Catches: probes that share their connections with streams, liveness that depends on load. It is watched for
    longer than it takes the kubelet to restart a pod that does not answer."""
    limits = {"SSE_MAX_STREAMS": "300", "WORKER_CONNECTIONS": "40", "SSE_IDLE_TIMEOUT": "0"}
    with Cluster(tmp_path, Scale(probes=0.1, least_timeout=60.0), **limits) as cluster, contextlib.ExitStack() as held:
        pod = cluster.start_pod()
        pod.wait_for("Ready", timeout=30)
        streams = held.enter_context(_streams(pod.port("http"), 300))
        # Silent connections take the places left, and more.
        for _ in range(100):
            held.enter_context(socket.create_connection(("127.0.0.1", pod.port("http")), 10))
        liveness = pod.spec.probes[Kind.LIVENESS]
        patience = liveness.period * liveness.failure_threshold
        began = time.monotonic()
        eventually(
            lambda: time.monotonic() - began > patience + 2 or not pod.ready or pod.restarts,
            patience + 10,
            pod.describe,
        )
        assert pod.ready and pod.restarts == 0 and pod.count("NotReady") == 0, pod.describe()
        assert len(streams) == 300


def test_a_pod_waits_for_its_log_instead_of_being_restarted(tmp_path: Path) -> None:
    """Catches: a startup budget, or a start, that cannot wait for a Redis which is applied at the same time."""
    with Cluster(tmp_path, Scale(probes=0.5, least_timeout=60.0)) as cluster:
        cluster.redis.kill()
        pod = cluster.start_pod()
        pod.wait_for("Unhealthy", times=3, timeout=30)
        assert not pod.ready and pod.restarts == 0
        cluster.redis.start()
        pod.wait_for("Ready", timeout=30)
        assert pod.restarts == 0, pod.describe()


def test_no_pod_leaves_the_service_when_redis_is_down(tmp_path: Path) -> None:
    """Catches: readiness, or liveness, that depends on what all pods share."""
    with Cluster(tmp_path) as cluster:
        pod = cluster.start_pod()
        pod.wait_for("Ready", timeout=30)
        with _streams(pod.port("http"), 1):
            cluster.redis.kill()
            began = time.monotonic()
            readiness = pod.spec.probes[Kind.READINESS]
            # The log counts as unreachable after 5 s (health.checks.TAIL_MAX_AGE).
            patience = 5 + readiness.period * readiness.failure_threshold
            eventually(lambda: time.monotonic() - began > patience + 1 or not pod.ready, 20, pod.describe)
            assert pod.ready and pod.restarts == 0, pod.describe()
