"""No. 9: SIGTERM cuts streams, and new clients are refused.

Endpoints are removed with a delay, so Services still send clients to a leaving pod. A stream never ends on its own, so a
server that waits for it is killed in the middle.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.failure_modes.crowd import Crowd
from tests.failure_modes.pods import TENTH, our_pod, plain_pod
from tests.support.resuming_client import ResumingClient
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

pytestmark = pytest.mark.serial  # the grace periods are a tenth of real ones

CLIENTS = 50


@pytest.mark.slow  # the plain app's failure, which no change of ours affects
def test_the_plain_pod_refuses_newcomers_at_once_and_cuts_every_stream_at_the_end(tmp_path: Path) -> None:
    with plain_pod(tmp_path, TENTH) as pod, Crowd(pod.port, CLIENTS, "/events") as crowd:
        crowd.wait(lambda crowd: crowd.answered == CLIENTS)
        began = time.monotonic()
        pod.kubelet.delete()

        def refused() -> bool:
            try:
                with SSEClient(pod.port, "/events", timeout=0.5):
                    return False
            except OSError:
                return True

        eventually(refused, 2.5)
        assert crowd.open == CLIENTS, "the Service may still send it clients, and it has said nothing to those it has"
        crowd.wait(lambda crowd: crowd.endings("cut") == CLIENTS)
        assert time.monotonic() - began > 0.9 * pod.kubelet.spec.grace - 1, "it took the whole grace period"
        assert crowd.endings("clean") == 0


def test_our_pod_serves_on_ends_each_stream_cleanly_and_exits_in_time(tmp_path: Path) -> None:
    scale = replace(TENTH, grace=1.0)
    with (
        our_pod(tmp_path, scale, SSE_DRAIN_DELAY=2.5, SSE_DRAIN_WINDOW=1) as pod,
        Crowd(pod.port, CLIENTS, "/events/news") as crowd,
        ResumingClient(pod.port, "/events/news") as reader,
    ):
        crowd.wait(lambda crowd: crowd.answered == CLIENTS)
        reader.wait_connected()
        began = time.monotonic()
        pod.kubelet.delete()
        eventually(lambda: pod.probe("/readyz").status == 503, 1.5, interval=0.01)
        assert pod.probe("/healthz").status == 200

        # While Services may send it clients, publishing works, and new clients are turned away so that they reconnect.
        assert pod.ask("POST", "/events/news", b"last words").status == 201
        with SSEClient(pod.port, "/events/news") as newcomer:
            assert newcomer.status == 200
            blocks = newcomer.read_to_end(1.0)
            assert newcomer.ending.clean
            assert any(block.retry for block in blocks)
        assert crowd.endings("cut") == 0

        pod.kubelet.wait_ended()
        assert time.monotonic() - began < 2.5 + 1 + 5
        crowd.wait(lambda crowd: crowd.endings("clean") == CLIENTS, 2)
        assert crowd.endings("cut") == 0
        assert crowd.got(b"last words") == CLIENTS
        reader.wait_for(lambda client: client.endings and client.endings[0] is Ending.TERMINATED)
        assert [entry.data for entry in reader.ledger] == ["last words"]
        assert not [event for event in pod.kubelet.events("Killing") if "SIGKILL" in event.message]
        assert pod.kubelet.events("Exited")[-1].message == "exit status 0"
