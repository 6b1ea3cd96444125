"""/metrics of the running service: every metric has a sane value after traffic, two workers add up, a killed one's
gauges go and its counters stay."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sse.version import VERSION
from tests.conftest import StartServer
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]


class Scrape:
    """One scrape of /metrics."""

    def __init__(self, server: Server) -> None:
        text = server.request("GET", "/metrics", port=server.health_port).text
        self.samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, *labels: str) -> float:
        return self.samples[(name, *sorted(labels))]

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        return {key[1:]: value for key, value in self.samples.items() if key[0] == name}


def until(server: Server, condition: Callable[[Scrape], object], timeout: float = 8.0) -> Scrape:
    """Scrape until the condition holds: workers flush once a second."""
    last: list[Scrape] = []

    def look() -> bool:
        last[:] = [Scrape(server)]
        return bool(condition(last[0]))

    eventually(look, timeout, lambda: f"{last[0].samples}", interval=0.1)
    return last[0]


def has_ended(client: SSEClient) -> bool:
    """Return whether the connection has ended, without reading from it."""
    try:
        return not client.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_every_metric_has_a_sane_value_after_known_traffic(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_MAX_STREAMS=6, SSE_REPLAY_LIMIT=4)
    quiet = Scrape(server)
    assert sum(quiet.series("sse_streams").values()) == 0   # no canary in it
    assert sum(quiet.series("sse_connections").values()) == 0   # nor the scrape
    clients = [open_stream(server, "/events/busy") for _ in range(5)]
    until(server, lambda scrape: scrape("sse_streams", "live") == 5)
    for number in range(10):
        server.publish("busy", f"{number:03}")
    resumed = open_stream(server, "/events/busy?since=earliest")    # ten events, of which four are replayed
    refused = open_stream(server, "/events/busy")
    for client in (*clients, resumed):
        client.events_until(lambda block: block.data == "009")
    assert refused.wait_closed().clean
    clients[0].close()
    scrape = until(server, lambda scrape: scrape("sse_streams_closed_total", "client") == 1)
    assert scrape("sse_streams", "live") == 5
    assert scrape("sse_connections", "stream") == 5
    assert scrape("sse_streams_opened_total") == 6
    assert sum(scrape.series("sse_streams_closed_total").values()) == 1
    assert scrape("sse_streams_refused_total", "streams") == 1
    assert scrape("sse_events_published_total") == 10
    assert scrape("sse_events_delivered_total") == 5 * 10 + 4
    assert scrape("sse_replayed_events_total") == 4
    assert scrape("sse_resets_total", "too-far") == 1
    # id: …-n, data: 000 and the line ends
    one = len("id: 1795452410040-0\ndata: 000\n\n")
    assert 54 * one <= scrape("sse_bytes_sent_total") <= 54 * (one + 3)
    assert scrape("sse_delivery_seconds_count") == 10
    assert 0 < scrape("sse_delivery_seconds_sum") < 10
    assert scrape("sse_delivery_seconds_bucket", "+Inf") == 10
    assert 1 <= scrape("sse_fanout_pass_seconds_count")
    assert 0 < scrape("sse_fanout_pass_seconds_sum") < 10
    for name in ("sse_log_tail_age_seconds", "health_loop_lag_seconds", "health_canary_age_seconds"):
        assert all(0 <= age < 5 for age in scrape.series(name).values()) and scrape.series(name)
    assert scrape("health_workers", "running") == scrape("health_workers_expected") == 1


def test_metrics_have_processes_and_build(server: Server) -> None:
    scrape = Scrape(server)
    assert set(scrape.series("process_open_fds")) == {("master",), ("0",)}
    for process in ("master", "0"):
        assert 10e6 < scrape("process_resident_memory_bytes", process) < 1e9
        assert 0 < scrape("process_open_fds", process) < scrape("process_max_fds", process)
        assert 0 < scrape("process_cpu_seconds_total", process) < 600
        assert abs(scrape("process_start_time_seconds", process) - time.time()) < 600
    ((labels, one),) = scrape.series("headwater_build_info").items()
    assert one == 1 and VERSION in labels


def test_connections_are_counted_by_state(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server()
    open_stream(server, "/events/one")
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    kept.request("GET", "/openapi.json")
    kept.getresponse().read()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5):
        wanted = {("new",): 1, ("active",): 0, ("idle",): 1, ("stream",): 1}
        until(server, lambda scrape: scrape.series("sse_connections") == wanted)
    kept.close()
    until(server, lambda scrape: scrape("sse_connections", "new") == scrape("sse_connections", "idle") == 0)


def test_workers_metrics_add_up_and_a_killed_workers_gauges_end_but_not_its_counters(
    start_server: StartServer, open_stream: OpenStream
) -> None:
    server = start_server(WEB_CONCURRENCY=2)
    clients = [open_stream(server, "/events/busy") for _ in range(12)]
    until(server, lambda scrape: scrape("sse_streams", "live") == 12)
    for number in range(5):
        server.publish("busy", f"{number}")
    for client in clients:
        client.events_until(lambda block: block.data == "4")
    before = until(
        server,
        lambda scrape: scrape("sse_events_delivered_total") == 60 and scrape("health_workers", "running") == 2,
    )
    assert before("sse_streams_opened_total") == 12
    assert len(before.series("health_canary_age_seconds")) == 2
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in server.pids(), 10)
    after = until(
        server,
        lambda scrape: scrape("health_workers", "running") == 2
        and scrape("sse_streams", "live") == 12 - sum(map(has_ended, clients)),
        15,
    )
    gone = sum(map(has_ended, clients))
    assert after("sse_streams", "live") == after("sse_connections", "stream") == 12 - gone
    assert after("sse_events_delivered_total") == 60
    assert after("sse_events_published_total") == 5
    assert after("sse_streams_opened_total") == 12
    assert set(after.series("process_open_fds")) == {("master",), ("0",), ("1",)}


@pytest.mark.parametrize("path", ["/metrics", "/metrics?x=1"])
def test_the_main_port_has_no_metrics(server: Server, path: str) -> None:
    assert server.request("GET", path).status == 404
