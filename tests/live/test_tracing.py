"""A sampled publish can be followed to the worker that delivers it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.live.observe import access_log, json_lines
from tests.sse.log.redis_place import redis_server
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(scope="module", params=["sqlite", "redis", "memory"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Two workers if the log can be shared, else one."""
    places: dict[str, dict[str, Any]] = {
        "sqlite": {"WEB_CONCURRENCY": 2},
        "redis": {"WEB_CONCURRENCY": 2},
        "memory": {"SSE_LOG": "memory:"},
    }
    env = places[request.param]
    if request.param == "redis":
        env["SSE_LOG"] = redis_server(request).url
    with Server(LOG_FORMAT="json", SSE_TRACE_LINES=1000, **env) as running:
        yield running


def deliveries(server: Server, channel: str) -> list[dict[str, Any]]:
    """Return the log lines about a channel's deliveries."""
    lines = json_lines(server, "headwater.delivery")
    return [line for line in lines if line["message"] == "delivery" and channel in line["channels"].split(",")]


def told(server: Server, channel: str, streams: int) -> list[dict[str, Any]]:
    """Wait until the lines tell of so many streams; return them."""
    eventually(
        lambda: sum(line["streams"] for line in deliveries(server, channel)) >= streams, 5, lambda: server.log_tail()
    )
    return deliveries(server, channel)


def test_a_sampled_publishs_trace_is_in_its_own_log_line_and_in_its_deliveries(
    server: Server, open_stream: OpenStream
) -> None:
    streams = [open_stream(server, "/events/found") for _ in range(12)]
    others = [open_stream(server, "/events?channel=found&channel=other") for _ in range(3)]
    for client in streams + others:
        client.next_event()
    server.publish("found", "unsampled", traceparent=f"00-{TRACE}-{PARENT}-00")
    before = time.time()
    id = server.publish("found", "sampled", traceparent=SAMPLED, X_Request_ID="the-publish")
    for client in streams + others:
        assert [client.next_message().data for _ in range(2)] == ["unsampled", "sampled"]
    lines = told(server, "found", 15)
    assert sum(line["streams"] for line in lines) == 15
    # One for each of the two groups, in each worker that has some of it.
    assert 2 <= len(lines) <= 2 * server.worker_count
    for line in lines:
        assert line.items() >= {"trace": TRACE, "id": id, "events": 1, "channels": "found", "level": "info"}.items()
        assert 0 <= line["latency"] < time.time() - before + 0.01
    (published,) = [line for line in access_log(server) if line["request_id"] == "the-publish"]
    assert published["trace"] == TRACE
    assert sum("trace" in line for line in access_log(server) if line.get("target") == "/events/found") == 1


def test_a_batch_has_a_line_for_each_pass_and_not_for_each_event(server: Server, open_stream: OpenStream) -> None:
    client = open_stream(server, "/events?channel=batch&channel=batch2")
    client.next_event()
    body = "".join(json.dumps({"channel": f"batch{'2' if n % 3 else ''}", "data": f"{n}"}) + "\n" for n in range(3000))
    answer = server.request(
        "POST", "/events", body, {"Content-Type": "application/x-ndjson", "traceparent": SAMPLED}
    )
    assert answer.status == 201
    assert [client.next_message().data for _ in range(3000)] == [f"{n}" for n in range(3000)]
    eventually(lambda: sum(line["events"] for line in deliveries(server, "batch")) == 3000, 5)
    lines = deliveries(server, "batch")
    assert len(lines) <= 60, "passes join events"
    assert {line["channels"] for line in lines} == {"batch,batch2"}
    assert lines[0]["id"] == answer.json()["ids"][0]


IGNORED = [
    pytest.param("00-nonsense", id="malformed"),
    pytest.param(f"ff-{TRACE}-{PARENT}-01", id="of the forbidden version"),
    pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="with a parent of zeros"),
    pytest.param("x" * 8000, id="long"),
]


@pytest.mark.parametrize("header", IGNORED)
def test_an_invalid_traceparent_changes_nothing(server: Server, open_stream: OpenStream, header: str) -> None:
    client = open_stream(server, "/events/ignored")
    client.next_event()
    ignored = server.publish("ignored", "x", traceparent=header)
    followed = server.publish("ignored", "y", traceparent=SAMPLED)
    assert [client.next_message().data for _ in range(2)] == ["x", "y"]
    eventually(lambda: followed in ids(server, "ignored"), 5, lambda: server.log_tail())
    assert ignored not in ids(server, "ignored")


def ids(server: Server, channel: str) -> list[str]:
    """Return the ids of events that have delivery lines."""
    return [line["id"] for line in deliveries(server, channel)]


def test_events_that_a_resumed_stream_missed_have_no_delivery_line(server: Server, open_stream: OpenStream) -> None:
    server.publish("missed", "x", traceparent=SAMPLED)
    client = open_stream(server, "/events/missed?since=earliest")
    assert client.next_message().data == "x"
    live = server.publish("missed", "y", traceparent=SAMPLED)
    assert client.next_message().data == "y"
    told(server, "missed", 1)
    assert ids(server, "missed") == [live]


def test_a_publisher_that_samples_every_event_does_not_fill_the_log(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(LOG_FORMAT="json", SSE_TRACE_LINES=5)
    client = open_stream(server, "/events/flood")
    client.next_event()
    began = time.monotonic()
    for n in range(150):
        server.publish("flood", f"{n}", traceparent=SAMPLED)
        assert client.next_message().data == f"{n}"
    seconds = time.monotonic() - began

    def suppressed() -> int:
        return sum(line.get("suppressed", 0) for line in json_lines(server, "headwater.delivery"))

    eventually(lambda: suppressed() + len(deliveries(server, "flood")) == 150, 5, lambda: server.log_tail())
    assert 5 <= len(deliveries(server, "flood")) <= 5 * (seconds + 2)


def test_with_no_delivery_lines_allowed_no_trace_is_stored(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(LOG_FORMAT="json", SSE_TRACE_LINES=0)
    client = open_stream(server, "/events/off")
    client.next_event()
    server.publish("off", "x", traceparent=SAMPLED)
    assert client.next_message().data == "x"
    client.close()
    eventually(lambda: len(access_log(server)) == 2)
    assert "trace" not in access_log(server)[0] and json_lines(server, "headwater.delivery") == []
