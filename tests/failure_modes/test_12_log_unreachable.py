"""No. 12: the log, the one thing that all pods share, cannot be reached.

A health check that asks it makes all pods unready, or restarts all, at the same moment: a dependency's outage becomes
everybody's, and ends with a stampede.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failure_modes.pods import our_pod, plain_pod
from tests.support.kubelet import Kind
from tests.support.redis_server import RedisServer
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

TAIL_MAX_AGE = 5.0  # seconds without an answer until the log counts as unreachable


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.slow  # the plain app's failure, which no change of ours affects
def test_the_plain_pod_is_restarted_although_no_restart_brings_its_redis_back(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with plain_pod(tmp_path, REDIS_URL=redis_server.url) as pod:
        redis_server.pause()
        pod.kubelet.wait_for("Killing")
        assert pod.unhealthy(Kind.LIVENESS)
        pod.kubelet.wait_for("Started", 2)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("pause", id="it does not answer"),
        pytest.param("kill", id="it is gone", marks=pytest.mark.slow),
    ],
)
def test_none_of_our_pods_is_restarted_nor_unready_unless_strict(
    tmp_path: Path, redis_server: RedisServer, fault: str
) -> None:
    (tmp_path / "strict").mkdir()
    with (
        our_pod(tmp_path, SSE_LOG=redis_server.url) as pod,
        our_pod(tmp_path / "strict", SSE_LOG=redis_server.url, HEALTH_READY_STRICT=1) as strict,
        SSEClient(pod.port, "/events/news") as client,
    ):
        pod.ask("POST", "/events/news", b"before")
        assert client.next_message().data == "before"
        getattr(redis_server, fault)()

        refused = pod.ask("POST", "/events/news", b"nowhere to put it", timeout=20)
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        eventually(lambda: not strict.kubelet.ready, TAIL_MAX_AGE + 5)
        verbose = eventually(lambda: _tail(pod.probe("/readyz?verbose").text), TAIL_MAX_AGE + 5)
        assert "the log last answered" in verbose, "degraded: said, and not acted on"
        assert pod.probe("/readyz").status == pod.probe("/healthz").status == strict.probe("/healthz").status == 200
        assert pod.kubelet.ready

        redis_server.resume() if fault == "pause" else redis_server.start()
        eventually(lambda: strict.kubelet.ready, 10)
        published = eventually(lambda: pod.ask("POST", "/events/news", b"after", timeout=20).status == 201, 10)
        assert published
        assert client.next_message(10).data == "after", "the stream of before, which nobody has cut"
        assert pod.restarts == strict.restarts == 0
        assert pod.unhealthy() == []
        assert strict.unhealthy(Kind.LIVENESS) == []


def _tail(verbose: str) -> str:
    return next((line for line in verbose.splitlines() if line.startswith("[-]log-tail")), "")
