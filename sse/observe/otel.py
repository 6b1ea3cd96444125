"""OpenTelemetry traces of a publish: request → append → deliver. An optional extra (``headwater[otel]``).

Nothing of it is imported unless SSE_OTEL is on. Where spans go, and how many, is said in the SDK's own environment
variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_…``, ``OTEL_SERVICE_NAME``).

A request's span becomes the parent of the append's, whose traceparent goes with the events
(:mod:`sse.events.trace`); the span of a delivery, in whichever worker of whichever pod, is its child.
Parents are handed on as text and never as
"the current span": a delivery has no request, and greenlets come and go.
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
from .request_id import request_id

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

# At a worker's end the last spans are sent, if that takes no longer, in seconds: a hurried drain leaves it no more
# before gunicorn kills it (see sse.drain.HURRY).
FLUSH_SECONDS: Final = 0.4

_SPAN: Final = "sse.span"  # where the environ has the request's
_MESSAGING: Final[dict[str, AttributeValue]] = {"messaging.system": "headwater"}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Spans:
    """The spans of one process. May be made before a fork; begins to work in the process that first needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracer: Tracer | None = None
        self._own: TracerProvider | None = None

    @property
    def tracer(self) -> Tracer:
        """From the provider that the app has set up itself, if it has, else from one of our own: with a thread that
        sends spans, so not before the fork."""
        if self._tracer is None:
            with self._lock:
                if self._tracer is None:
                    provider = api.get_tracer_provider()
                    if isinstance(provider, api.ProxyTracerProvider):
                        self._own = provider = _provider()
                    self._tracer = provider.get_tracer("headwater")
        return self._tracer

    def stop(self) -> None:
        """Send what is left, for so long; the collector may be away."""
        if self._own is not None:
            # What the SDK itself waits for is longer than a drain.
            thread = threading.Thread(target=self._own.shutdown, name="otel-shutdown", daemon=True)
            thread.start()
            thread.join(FLUSH_SECONDS)

    # ── a publish's request ───────────────────────────────────────────────────────────────────────────────

    def install(self, app: Flask, blueprint: str) -> None:
        """Give each publish of this blueprint's a server span. (It then takes the way through Flask's dispatch.)"""
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
        environ[_SPAN] = span
        # From here on the request's parent is this span, as in a request that is passed on (Trace Context §3.4).
        environ["HTTP_TRACEPARENT"] = _traceparent(span)

    def _end(self, response: Response) -> Response:
        span = request.environ.pop(_SPAN, None)
        if span is not None:
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()
        return response

    # ── the append ────────────────────────────────────────────────────────────────────────────────────────

    def current(self) -> str | None:
        """The traceparent of the span that the app is in."""
        return _traceparent(api.get_current_span())

    @contextlib.contextmanager
    def appending(self, events: Sequence[Event], trace: str) -> Iterator[tuple[str | None, list[int]]]:
        """A span for the time inside. Yields what the events are to carry, and a list for their positions."""
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
        """A span for what a pass has written."""
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
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):  # what the SDK says for nothing
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
