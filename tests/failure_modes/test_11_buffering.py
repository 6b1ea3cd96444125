"""No. 11: something on the way holds events back.

nginx buffers answers by default (``proxy_buffering on``): an event waits until a buffer is full, or for ever. It also
cuts an answer that is silent for ``proxy_read_timeout`` (60 s).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failure_modes.nginx_defaults import nginx_with_its_defaults
from tests.failure_modes.pods import Pod, our_pod, plain_pod
from tests.k8s.nginx import Nginx
from tests.support.sse_client import Ending, SSEClient, StreamEnded

SIZES = (1, 10, 100, 1000, 4000, 16_000, 65_536)  # bytes; the last is an event's maximum
EACH = 7  # events of each size
TYPICAL = 0.05  # seconds: the bound, for the median of each size
WORST = 1.0  # seconds that a busy machine may add to one


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with our_pod(tmp_path_factory.mktemp("pod"), SSE_HEARTBEAT=0.5) as pod:
        yield pod


def times(pod: Pod, client: SSEClient) -> dict[int, list[float]]:
    """Return the seconds from before an event's POST to its arrival, which include its way from append to wire."""
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    for number in range(EACH):
        for size in SIZES:
            data = (f"{number}" * size)[:size]
            began = time.monotonic()
            assert pod.ask("POST", "/events/sizes", data.encode()).status == 201
            assert client.next_message().data == data
            taken[size].append(time.monotonic() - began)
    return taken


def test_with_nginxs_defaults_the_plain_apps_events_stay_in_nginx(tmp_path: Path) -> None:
    with (
        plain_pod(tmp_path) as pod,
        nginx_with_its_defaults(tmp_path / "nginx", pod.port, "proxy_read_timeout 3s;") as port,
    ):
        with SSEClient(port, "/events") as client, SSEClient(pod.port, "/events") as direct:
            pod.ask("POST", "/publish", b'{"data": "urgent"}')
            assert direct.next_message().data == "urgent", "it was sent"
            with pytest.raises((TimeoutError, StreamEnded)):
                client.next_message(1.5)
            # One twentieth of nginx's 60 s: a quiet stream is cut in the middle.
            with pytest.raises(StreamEnded):
                client.next_message(5)
            while True:
                try:
                    client.next_message(1)
                except StreamEnded:
                    break
            assert client.ending in (Ending.CUT, Ending.CLOSED, Ending.RESET)


def test_with_nginxs_defaults_ours_arrive_at_once_because_the_answer_asks_for_it(tmp_path: Path, ours: Pod) -> None:
    with (
        nginx_with_its_defaults(tmp_path / "nginx", ours.port, "proxy_read_timeout 1s;") as port,
        SSEClient(port, "/events/sizes") as client,
    ):
        check(times(ours, client))
        # Quiet for longer than nginx waits, but for the heartbeats.
        with pytest.raises(TimeoutError):
            client.next_message(1.5)
        assert client.ending is Ending.OPEN


@pytest.mark.parametrize("way", ["direct", "through the nginx that we ship"])
def test_every_size_of_event_is_on_the_wire_within_50_ms(tmp_path: Path, ours: Pod, way: str) -> None:
    if way == "direct":
        with SSEClient(ours.port, "/events/sizes") as client:
            check(times(ours, client))
        return
    with Nginx(tmp_path) as nginx:
        nginx.start([ours.port])
        with SSEClient(nginx.port, "/events/sizes") as client:
            check(times(ours, client))


def check(taken: dict[int, list[float]]) -> None:
    medians = {size: statistics.median(seconds) for size, seconds in taken.items()}
    worst = max(max(seconds) for seconds in taken.values())
    in_ms = {size: round(1000 * value, 1) for size, value in medians.items()}
    print(f"medians {in_ms} ms, worst {1000 * worst:.0f} ms")
    assert max(medians.values()) < TYPICAL, medians
    assert worst < WORST, taken
