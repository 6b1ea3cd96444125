"""OpenTelemetry traces of a publish: request → append → deliver. An optional extra (``headwater[otel]``).

This module is imported only if SSE_OTEL is on. The SDK's own environment variables set where spans go, and how many
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_…``, ``OTEL_SERVICE_NAME``).

The request's span is the parent of the append's, whose traceparent is stored with the events (:mod:`sse.events.trace`).
It is the parent of the spans of deliveries, in every worker of every pod. Parents are handed on as text, not as
"the current span", because a delivery has no request.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from flask import Flask, Response, request
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..events.model import Event, format_id
from ..events.trace import sampled
from ..streams.deliveries import Delivered
from .environ import SPAN
from .request_id import request_id

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

# Seconds that a worker spends at its end to send the last spans. A hurried drain (``sse.worker.drain.HURRY``) leaves no
# more before gunicorn kills the worker.
FLUSH_SECONDS: Final = 0.4

_MESSAGING: Final[dict[str, AttributeValue]] = {"messaging.system": "headwater"}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Spans:
    """The spans of one process. May be created before a fork, because it starts no thread before its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracer: Tracer | None = None
        self._own: TracerProvider | None = None

    @property
    def tracer(self) -> Tracer:
        """The tracer of the app's own provider, else of one that we set up, whose thread sends the spans."""
        if self._tracer is None:
            with self._lock:
                if self._tracer is None:
                    provider = api.get_tracer_provider()
                    if isinstance(provider, api.ProxyTracerProvider):
                        self._own = provider = _provider()
                    self._tracer = provider.get_tracer("headwater")
        return self._tracer

    def stop(self) -> None:
        """Send the remaining spans, for at most ``FLUSH_SECONDS``, because the collector may be unreachable."""
        if self._own is not None:
            # The SDK's own time-out is longer than a drain.
            thread = threading.Thread(target=self._own.shutdown, name="otel-shutdown", daemon=True)
            thread.start()
            thread.join(FLUSH_SECONDS)

    # ── a publish's request ───────────────────────────────────────────────────────────────────────────────

    def install(self, app: Flask, blueprint: str) -> None:
        """Give each publish to this blueprint a server span. The hooks close the fast path around Flask's dispatch."""
        app.before_request_funcs.setdefault(blueprint, []).append(self._begin)
        app.after_request_funcs.setdefault(blueprint, []).append(self._end)

    def _begin(self) -> None:
        if request.method != "POST":
            return
        environ = request.environ
        carrier = {
            name: environ[key]
            for name, key in (("traceparent", "HTTP_TRACEPARENT"), ("tracestate", "HTTP_TRACESTATE"))
            if key in environ
        }
        route = "" if request.url_rule is None else request.url_rule.rule.replace("<", "{").replace(">", "}")
        span = self.tracer.start_span(
            f"POST {route}",
            _PROPAGATOR.extract(carrier, Context()),
            SpanKind.SERVER,
            {
                "http.request.method": "POST",
                "http.route": route,
                "url.path": request.path,
                "http.request.header.x-request-id": [request_id(environ)],
            },
        )
        environ[SPAN] = span
        # From here on this span is the parent, as when a proxy passes a request on (Trace Context §3.4).
        environ["HTTP_TRACEPARENT"] = _traceparent(span)

    def _end(self, response: Response) -> Response:
        span = request.environ.pop(SPAN, None)
        if span is not None:
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()
        return response

    # ── the append ────────────────────────────────────────────────────────────────────────────────────────

    def current(self) -> str | None:
        """Return the traceparent of the app's current span."""
        return _traceparent(api.get_current_span())

    @contextlib.contextmanager
    def appending(self, events: Sequence[Event], trace: str) -> Iterator[tuple[str | None, list[int]]]:
        """Open a span for an append. Yields the traceparent to store, and a list to fill with the events' positions."""
        positions: list[int] = []
        attributes = _about({event.channel for event in events}, len(events))
        with self.tracer.start_as_current_span(
            "append", _context(trace), SpanKind.PRODUCER, {**attributes, "messaging.operation.type": "send"}
        ) as span:
            yield sampled(_traceparent(span)), positions
            if positions:
                span.set_attribute("messaging.message.id", format_id(positions[0]))

    # ── the delivery ──────────────────────────────────────────────────────────────────────────────────────

    def delivered(self, delivered: Delivered) -> None:
        """Record a span for the events that a pass has written."""
        frames = delivered.frames
        span = self.tracer.start_span(
            "deliver",
            _context(delivered.trace.parent),
            SpanKind.CONSUMER,
            {
                **_about({frame.channel for frame in frames}, len(frames)),
                "messaging.operation.type": "process",
                "messaging.message.id": format_id(frames[0].position),
                "sse.streams": delivered.streams,
            },
            start_time=int(delivered.began * 1e9),
        )
        span.end(int(delivered.ended * 1e9))


def _provider() -> TracerProvider:
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):  # the SDK's default
        resource = resource.merge(Resource({SERVICE_NAME: "headwater"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _context(traceparent: str) -> Context:
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


def _traceparent(span: api.Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _about(channels: set[str], events: int) -> dict[str, AttributeValue]:
    attributes = dict(_MESSAGING)
    if len(channels) == 1:
        attributes["messaging.destination.name"] = next(iter(channels))
    if events > 1:
        attributes["messaging.batch.message_count"] = events
    return attributes
