"""OpenTelemetry: the real SDK in real workers, and a collector on loopback."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sse.settings import Settings, SettingsError
from tests.conftest import StartServer
from tests.live.observe import access_log, json_lines
from tests.sse.log.redis_place import redis_server
from tests.support.ports import ReservedPort
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
SERVER, PRODUCER, CONSUMER = 2, 4, 5  # SpanKind of the protocol


class Span(NamedTuple):
    """One span, as received."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    attributes: dict[str, Any]
    service: str


class Collector:
    """An OTLP/HTTP receiver."""

    def __init__(self) -> None:
        spans = self.spans = list[Span]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                spans.extend(read(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def read(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for s in scope.spans:
                yield Span(
                    s.name,
                    s.kind,
                    s.trace_id.hex(),
                    s.span_id.hex(),
                    s.parent_span_id.hex(),
                    s.start_time_unix_nano,
                    s.end_time_unix_nano,
                    values(s.attributes),
                    service,
                )


def values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def server(request: pytest.FixtureRequest, collector: Collector) -> Iterator[Server]:
    env: dict[str, Any] = {"SSE_LOG": redis_server(request).url} if request.param == "redis" else {}
    with traced(collector, WEB_CONCURRENCY=2, **env) as running:
        yield running


def traced(collector: Collector, **env: Any) -> Server:
    collector.spans.clear()
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": 50, "LOG_FORMAT": "json"}
    return Server(**settings | {"SSE_OTEL": "true"} | env)


def test_a_trace_goes_from_the_publisher_through_the_append_to_every_delivery(
    server: Server, collector: Collector, open_stream: OpenStream
) -> None:
    streams = [open_stream(server, "/events/orders") for _ in range(10)]
    for client in streams:
        client.next_event()
    id = server.publish("orders", "x", traceparent=SAMPLED, tracestate="a=1", X_Request_ID="otel/1")
    for client in streams:
        assert client.next_message().data == "x"
    eventually(
        lambda: sum(span.attributes.get("sse.streams", 0) for span in collector.of(TRACE)) == 10, 5, lambda: f"{collector.spans}"
    )
    eventually(lambda: {"append", "deliver"} < {span.name for span in collector.of(TRACE)}, 5)
    spans = collector.of(TRACE)
    (published,) = [span for span in spans if span.kind == SERVER]
    (appended,) = [span for span in spans if span.kind == PRODUCER]
    delivered = [span for span in spans if span.kind == CONSUMER]
    assert (published.name, appended.name, {span.name for span in delivered}) == ("POST /events/{channel}", "append", {"deliver"})
    assert (published.parent, appended.parent) == (PARENT, published.id)
    assert {span.parent for span in delivered} == {appended.id}
    assert 1 <= len(delivered) <= 2
    assert published.attributes["http.response.status_code"] == 201
    for span in (appended, *delivered):
        assert (span.attributes["messaging.destination.name"], span.attributes["messaging.message.id"]) == ("orders", id)
    assert published.begin <= appended.begin <= appended.end <= published.end
    assert all(appended.begin <= span.begin <= span.end for span in delivered)
    assert {span.service for span in spans} == {"headwater"}
    # The log lines speak of the same trace.
    assert {line["trace"] for line in json_lines(server, "headwater.delivery") if id == line["id"]} == {TRACE}
    assert [line["trace"] for line in access_log(server) if line["request_id"] == "otel/1"] == [TRACE]


def test_a_publish_without_a_trace_begins_one(
    server: Server, collector: Collector, open_stream: OpenStream
) -> None:
    client = open_stream(server, "/events/root")
    client.next_event()
    id = server.publish("root", "x")
    assert client.next_message().data == "x"

    def found() -> list[Span]:
        return [span for span in collector.spans if span.attributes.get("messaging.message.id") == id]

    eventually(lambda: {span.name for span in found()} == {"append", "deliver"}, 5, lambda: f"{collector.spans}")
    (trace,) = {span.trace for span in found()}
    eventually(lambda: len(collector.of(trace)) == 3, 5)
    assert [span.parent for span in collector.of(trace) if span.kind == SERVER] == [""]


def test_spans_of_an_unsampled_publish_are_not_sent(server: Server, collector: Collector, open_stream: OpenStream) -> None:
    client = open_stream(server, "/events/unsampled")
    client.next_event()
    unsampled = server.publish("unsampled", "x", traceparent=f"00-{'a' * 32}-{PARENT}-00")
    server.publish("unsampled", "y", traceparent=f"00-{'b' * 32}-{PARENT}-01")
    assert [client.next_message().data for _ in range(2)] == ["x", "y"]
    eventually(lambda: len(collector.of("b" * 32)) == 3, 5, lambda: f"{collector.spans}")
    assert collector.of("a" * 32) == []
    assert unsampled not in {line["id"] for line in json_lines(server, "headwater.delivery") if "id" in line}


def test_a_refused_publish_has_a_span_without_children(server: Server, collector: Collector) -> None:
    trace = "c" * 32
    assert server.request("POST", "/events/-", b"x", {"traceparent": f"00-{trace}-{PARENT}-01"}).status == 400
    eventually(lambda: len(collector.of(trace)) == 1, 5)
    assert collector.of(trace)[0].attributes["http.response.status_code"] == 400


def test_the_sdks_own_variables_set_sampling_and_the_service_name(
    collector: Collector, open_stream: OpenStream
) -> None:
    with traced(collector, OTEL_TRACES_SAMPLER="parentbased_always_off", OTEL_SERVICE_NAME="orders-sse") as server:
        client = open_stream(server, "/events/own")
        client.next_event()
        server.publish("own", "x")
        server.publish("own", "y", traceparent=SAMPLED)
        assert [client.next_message().data for _ in range(2)] == ["x", "y"]
        eventually(lambda: len(collector.of(TRACE)) == 3, 5, lambda: f"{collector.spans}")
        assert {span.trace for span in collector.spans} == {TRACE}
        assert {span.service for span in collector.spans} == {"orders-sse"}


def test_a_collector_that_is_away_costs_spans_and_nothing_else(start_server: StartServer, open_stream: OpenStream) -> None:
    with contextlib.ExitStack() as stack:
        nobody = ReservedPort()
        stack.callback(nobody.release)
        server = start_server(
            SSE_OTEL="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{nobody.number}",
            OTEL_BSP_SCHEDULE_DELAY=50,
            SSE_DRAIN_DELAY=0,
            SSE_DRAIN_WINDOW=0,
            LOG_FORMAT="json",
        )
        client = open_stream(server, "/events/away")
        client.next_event()
        for n in range(20):
            server.publish("away", f"{n}", traceparent=SAMPLED)
            assert client.next_message().data == f"{n}"
        server.wait_for_log("opentelemetry")
        began = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - began < 4


def maps(server: Server) -> str:
    """Return the files that the worker has mapped, which include its compiled modules."""
    (worker,) = server.worker_pids()
    return Path(f"/proc/{worker}/maps").read_text()


def test_opentelemetry_is_not_imported_while_it_is_off(start_server: StartServer, collector: Collector) -> None:
    server = start_server()
    server.publish("off", "x", traceparent=SAMPLED)
    assert "google/_upb" not in maps(server)
    code = "import sys, wsgi; assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'google'))]"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
    with traced(collector) as other:
        assert "google/_upb" in maps(other)  # else it would show nothing


def test_without_the_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_OTEL", "true")
    assert Settings.from_environ().sse_otel
    monkeypatch.setattr("sse.settings.conflicts.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"SSE_OTEL=true cannot be used .* install headwater\[otel\]"):
        Settings.from_environ()
