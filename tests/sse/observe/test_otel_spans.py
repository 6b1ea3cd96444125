"""Spans of a publish, collected in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import flask
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from sse import SSE
from sse.events.trace import Trace
from sse.events.wire import Frame
from sse.observe.otel import Spans
from sse.settings import Settings
from sse.streams.deliveries import Delivered
from tests.sse.worker_parts import TroubledLog

LOOPBACK = {"REMOTE_ADDR": "127.0.0.1"}


class Site(NamedTuple):
    app: flask.Flask
    log: TroubledLog
    exporter: InMemorySpanExporter

    def publish(self, path: str = "/events/a", **headers: str) -> int:
        return self.app.test_client().post(path, data=b"x", headers=headers, environ_base=LOOPBACK).status_code

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def site() -> Iterator[Site]:
    app = flask.Flask("app")
    sse = SSE(app, Settings.from_mapping({"SSE_LOG": "memory:", "SSE_OTEL": True, "SSE_AUTH": "none"})).current
    assert sse.spans is not None
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    sse.spans._tracer = provider.get_tracer("test")
    sse._log = log = TroubledLog(sse.log)
    yield Site(app, log, exporter)
    sse.stop()
    provider.shutdown()


def test_when_the_log_refuses_both_request_and_append_are_errors(site: Site) -> None:
    site.log.down = True
    assert site.publish() == 503
    request, append = site.spans["POST /events/{channel}"], site.spans["append"]
    assert request.status.status_code == append.status.status_code == StatusCode.ERROR
    assert request.attributes is not None and request.attributes["http.response.status_code"] == 503
    assert append.attributes is not None and "messaging.message.id" not in append.attributes


def test_a_bad_request_is_not_an_error_of_the_span(site: Site) -> None:
    assert site.publish("/events/_reserved") == 400
    (request,) = site.spans.values()
    assert request.status.status_code == StatusCode.UNSET


def test_the_append_is_a_child_of_the_request_and_that_of_the_publishers_span(site: Site) -> None:
    assert site.publish(traceparent=f"00-{'a' * 32}-{'b' * 16}-01") == 201
    request, append = site.spans["POST /events/{channel}"], site.spans["append"]
    assert request.parent is not None and f"{request.parent.span_id:016x}" == "b" * 16
    assert append.parent is not None and request.context is not None
    assert append.parent.span_id == request.context.span_id
    assert append.attributes is not None and append.attributes["messaging.destination.name"] == "a"
    assert f"{request.context.trace_id:032x}" == "a" * 32


@pytest.mark.parametrize("hangs", [False, True], ids=["answers", "hangs"])
def test_stop_sends_the_last_spans_and_does_not_wait_for_a_collector_that_hangs(hangs: bool) -> None:
    sent, answer = threading.Event(), threading.Event()

    class Provider:
        def shutdown(self) -> None:
            sent.set()
            assert answer.wait(30) or not hangs

    if not hangs:
        answer.set()
    spans = Spans()
    spans._own = Provider()  # type: ignore[assignment]
    began = time.monotonic()
    spans.stop()
    assert sent.is_set() and time.monotonic() - began < 10
    answer.set()


def test_a_delivery_span_has_the_times_of_the_delivery(site: Site) -> None:
    spans = site.app.extensions["sse"].spans
    frames = [Frame(position, "a", None, b"") for position in (1 << 20, (1 << 20) + 1)]
    trace = Trace(1 << 20, (1 << 20) + 1, f"00-{'a' * 32}-{'b' * 16}-01")
    spans.delivered(Delivered(trace, frames, 7, 1_700_000_000.0, 1_700_000_000.5))
    (span,) = site.spans.values()
    assert (span.start_time, span.end_time) == (1_700_000_000_000_000_000, 1_700_000_000_500_000_000)
    assert span.parent is not None and f"{span.parent.span_id:016x}" == "b" * 16
    assert span.attributes is not None
    assert (span.attributes["sse.streams"], span.attributes["messaging.batch.message_count"]) == (7, 2)
    assert span.attributes["messaging.message.id"] == "1-0"
