"""No. 8: readers that stall until every connection is taken.

After a laptop was closed, or a phone has lost its network, the connection stays and nobody reads. Without a write
time-out it stays until the kernel gives up, a quarter of an hour later.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.failure_modes.crowd import Crowd
from tests.failure_modes.pods import our_pod, plain_pod
from tests.support.kubelet import Kind
from tests.support.resuming_client import ResumingClient
from tests.support.wait import eventually

STALLED = 100  # as many as there are places, for either
BIG = "x" * 60_000


def test_the_plain_app_keeps_every_stalled_reader_and_is_restarted_for_it(tmp_path: Path) -> None:
    with plain_pod(tmp_path) as pod, Crowd(pod.port, STALLED, "/events", reads=False):
        pod.kubelet.wait_for("Killing")
        assert any("Client.Timeout exceeded" in text for text in pod.unhealthy(Kind.LIVENESS))


def test_ours_closes_them_after_the_write_time_out_and_serves_the_others(tmp_path: Path) -> None:
    with (
        our_pod(tmp_path, SSE_WRITE_TIMEOUT=1, SSE_MAX_STREAMS=STALLED + 1, SSE_RETRY=200) as pod,
        ResumingClient(pod.port, "/events/news") as reader,
    ):
        reader.wait_connected()
        with Crowd(pod.port, STALLED, "/events/news", reads=False):
            eventually(lambda: sum(_streams(pod.probe("/metrics").text)) == STALLED + 1, 10)
            with ResumingClient(pod.port, "/events/news") as latecomer:
                latecomer.wait_for(lambda client: client.connections > 1)  # 200, retry, a clean end: it reconnects
                assert latecomer.failed is None
                for part in range(4):
                    line = json.dumps({"channel": "news", "data": f"{part}" + BIG}).encode()
                    batch = b"\n".join([line] * 16)
                    answer = pod.ask("POST", "/events", batch, content_type="application/x-ndjson", timeout=20)
                    assert answer.status == 201, answer.text
                closed = 'sse_streams_closed_total{reason="write-timeout"}'
                eventually(lambda: pod.metric(closed) == STALLED, 15, lambda: pod.probe("/metrics").text)
                reader.wait_for(lambda client: len(client.ledger) == 64)
                latecomer.wait_for(lambda client: client.last_event_id)  # a stream of its own, at last
                pod.ask("POST", "/events/news", b"for all who read")
                for client in (reader, latecomer):
                    client.wait_for(lambda client: client.ledger and client.ledger[-1].data == "for all who read")
        assert reader.reconnects == 0, "who reads is not disturbed by those who do not"
        assert pod.restarts == 0
        assert pod.unhealthy() == []


def _streams(metrics: str) -> list[float]:
    return [float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("sse_streams{")]
