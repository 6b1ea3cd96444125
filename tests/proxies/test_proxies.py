"""A stream through each proxy, configured as docs/proxies.md says."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.observe import access_log, streams
from tests.proxies.proxy import DOCS, PROXIES, Proxy, running
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

KEY = "a-key-for-publishing-0001"
SPOOFED = "203.0.113.9"
#: Seconds, for the median. HAProxy without `http-no-delay` takes 0.21; the others, and with it, a few milliseconds.
AT_ONCE = 0.15


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with Server(
        SSE_HEARTBEAT=1, SSE_PUBLISH_KEY=KEY, SSE_TRUSTED_PROXIES="127.0.0.1", LOG_FORMAT="json", SSE_RETRY=100
    ) as server:
        yield server


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    with running(request.param, folder / "files", service.port) as started:
        yield started


def post(port: int, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", path, body, {"Authorization": f"Bearer {KEY}"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_events_arrive_at_once(proxy: Proxy) -> None:
    with SSEClient(proxy.port, "/events/at-once") as client:
        taken = []
        for number in range(15):
            began = time.monotonic()
            assert post(proxy.port, "/events/at-once", b"%d" % number)[0] == 201
            assert client.next_message().data == str(number)
            taken.append(time.monotonic() - began)
        assert statistics.median(taken) < AT_ONCE, taken


def test_heartbeats_pass_and_nothing_is_compressed(proxy: Proxy) -> None:
    with SSEClient(proxy.port, "/events/quiet", headers={"Accept-Encoding": "gzip, br, zstd"}) as client:
        names = dict(client.raw_headers)
        assert "no-transform" in names["cache-control"] and names["content-type"].startswith("text/event-stream")
        for _ in range(3):
            assert client.next_event(5).event == "heartbeat"


def test_a_stream_resumes_where_it_was(proxy: Proxy) -> None:
    identity = json.loads(post(proxy.port, "/events/resume", b"one")[1])["id"]
    post(proxy.port, "/events/resume", b"two")
    with SSEClient(proxy.port, "/events/resume", last_event_id=identity) as client:
        assert client.next_message().data == "two"


def test_a_channels_end_and_the_204_after_it_get_through(proxy: Proxy) -> None:
    channel = f"/events/end-{proxy.port}"
    with SSEClient(proxy.port, channel) as client:
        client.next_event()
        assert post(proxy.port, f"{channel}?close=1", b"the last")[0] == 201
        blocks = [block for block in client.read_to_end(5) if block.event != "heartbeat"]
        assert client.ending is Ending.TERMINATED
    assert [(block.event, block.data) for block in blocks if block.data] == [
        (None, "the last"),
        ("stream-end", json.dumps({"channel": channel.removeprefix("/events/")}, separators=(",", ":"))),
    ]
    with SSEClient(proxy.port, channel, last_event_id=client.last_event_id) as again:
        assert (again.status, bytes(again.body)) == (204, b"")


def test_a_client_that_leaves_is_gone_at_the_service_too(service: Server, proxy: Proxy) -> None:
    eventually(lambda: streams(service) == 0, 10)  # those of the tests before
    with SSEClient(proxy.port, "/events/leaving") as client:
        client.next_event()
        assert streams(service) == 1
    eventually(lambda: streams(service) == 0, 10)


def test_a_large_batch_gets_through(proxy: Proxy) -> None:
    """More than nginx's default for a body (1 MB), and more than fits into anybody's buffers."""
    line = json.dumps({"channel": "batch", "data": "x" * 60_000}).encode() + b"\n"
    status, body = post(proxy.port, "/events", line * 50, **{"Content-Type": "application/x-ndjson"})
    assert status == 201, body


def test_what_a_client_says_about_its_address_does_not_count(service: Server, proxy: Proxy) -> None:
    """The client is at 127.0.0.2, the proxy, which alone is trusted, at 127.0.0.1."""
    channel = f"address-{proxy.port}"  # not a request id: Envoy gives its own
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10, source_address=("127.0.0.2", 0))
    with contextlib.closing(connection):
        connection.request("GET", f"/events/{channel}", headers={"X-Forwarded-For": SPOOFED})
        assert connection.getresponse().status == 200

    def lines() -> list[dict[str, str]]:
        return [one for one in access_log(service) if one.get("channels") == channel]

    eventually(lines, 10)
    assert [one["client"] for one in lines()] == ["127.0.0.2"]


def test_a_drain_ends_the_streams_of_every_proxy_cleanly(tmp_path: Path) -> None:
    """One service that leaves, all proxies in front of it."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(SSE_HEARTBEAT=1, SSE_DRAIN_DELAY=1, SSE_DRAIN_WINDOW=1))
        clients = {}
        for name in PROXIES:
            started = stack.enter_context(running(name, tmp_path / name, server.port))
            clients[name] = stack.enter_context(SSEClient(started.port, "/events/drain"))
            clients[name].next_event()
        server.terminate()
        for name, client in clients.items():
            client.read_to_end(10)
            assert client.ending is Ending.TERMINATED, name
        assert server.wait() == 0


def test_each_proxy_that_the_page_says_was_tried_was() -> None:
    text = " ".join(DOCS.read_text().split())
    (sentence,) = re.findall(r"The tests run a real (.*?) with exactly", text)
    assert set(re.split(r", | and ", sentence)) == set(PROXIES)
