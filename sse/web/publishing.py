"""Publish over HTTP: turn a request into events, and their ids into the answer. Needs no Flask context.

The body of ``POST /events/<channel>`` is the data, verbatim. A batch is NDJSON (:mod:`sse.web.ndjson`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from ..auth.decision import REASONS, AccessDenied, Grant
from ..events.batch import format_ids
from ..events.model import Event, InvalidEvent, format_id
from ..events.trace import trace_id
from ..log import ChannelClosed, IdempotencyConflict, LogUnavailable
from ..observe.environ import TRACE
from . import ndjson
from .access import allowed
from .answers import check_log
from .problems import Problem
from .query import check_query, checked_channel, flag
from .service import Service

P = ParamSpec("P")

# Why publishes are refused: the label values of ``sse_publishes_refused_total``.
PUBLISH_REFUSALS: Final = (*REASONS, "rate", "size", "conflict", "ended", "log", "error")


def _counted(publishing: Callable[Concatenate[Service, P], str]) -> Callable[Concatenate[Service, P], str]:
    @wraps(publishing)
    def counting(service: Service, /, *args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return publishing(service, *args, **kwargs)
        except LogUnavailable:
            raise  # already counted by Service.append, which an app's own publishes use, too
        except Exception as error:
            service.stats.publishes_refused[_why_refused(error)] += 1
            raise

    return counting


def _why_refused(error: Exception) -> str:
    match error:
        case AccessDenied():
            return error.reason
        case IdempotencyConflict():
            return "conflict"
        case ChannelClosed():
            return "ended"
        case Problem(status=status) | HTTPException(code=status):
            return {413: "size", 429: "rate", 500: "error"}.get(status or 0, "invalid")
    return "error"


@_counted
def publish_event(service: Service, request: Request, channel: str) -> str:
    """Publish one event, or close the channel, or both; return the answer's JSON.

    The answer has the event's id; without an event, the closing position. Raises the errors that
    :func:`sse.web.answers.refusal` knows.
    """
    check_log(service, request)
    checked_channel(channel)
    _admitted(service, allowed(service, request, "publish", (channel,)))
    kind = retry = None
    close: tuple[str, ...] = ()
    if request.environ.get("QUERY_STRING"):
        check_query(request)
        kind, retry = request.args.get("event"), request.args.get("retry")
        if flag(request, "close"):
            close = (channel,)
    body = _body(request, service.settings.sse_max_event_bytes, "an event", "SSE_MAX_EVENT_BYTES")
    only_close = close and not body and kind is None and retry is None
    events = [] if only_close else [single(channel, body, kind, retry)]
    key = idempotency_key(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    positions = service.append(events, key=key, trace=_trace(service, request.environ), close=close)
    return _answer(positions[0], channel)


@_counted
def publish_checked(service: Service, event: Event) -> str:
    """Publish an event whose publisher was admitted; return the answer's JSON. Raises what the log raises."""
    return _answer(service.append((event,))[0], event.channel)


def _answer(position: int, channel: str) -> str:
    # Neither an id nor a checked channel contains anything that JSON would escape.
    return f'{{"id": "{format_id(position)}", "channel": "{channel}"}}\n'


@_counted
def publish_batch(service: Service, request: Request) -> str:
    """Publish a batch, and return the answer's JSON. Raises the errors that :func:`sse.web.answers.refusal` knows."""
    check_log(service, request)
    if request.mimetype != "application/x-ndjson":
        accepted = {"Accept-Post": "application/x-ndjson"}
        one = f"one event goes to {service.settings.sse_url_prefix}/<channel>"
        raise Problem(415, f"a batch is application/x-ndjson; {one}", headers=accepted)
    limits = service.settings
    asks_app = service.may is not None  # once, with the channels that the body names
    if not asks_app:
        # Before reading megabytes of body, refuse a caller who may not publish at all.
        _admitted(service, allowed(service, request, "publish", ()))
    body = _body(request, limits.sse_max_batch_bytes, "a batch", "SSE_MAX_BATCH_BYTES")
    events = ndjson.batch(body, max_events=limits.sse_max_batch_events, max_event_bytes=limits.sse_max_event_bytes)
    channels = {*events.closing, *(event.channel for event in events)}
    grant = allowed(service, request, "publish", sorted(channels))
    if asks_app:
        _admitted(service, grant)
    key = idempotency_key(request.headers.get("Idempotency-Key"))
    positions = service.append(events, key=key, trace=_trace(service, request.environ), close=events.closing)
    ids = format_ids(positions[: len(events)])
    ends = dict(zip(sorted(events.closing), positions[len(events) :], strict=True))
    # A line without data is answered by its channel's closing position, in the line's place.
    for channel, place in reversed(events.closing.items()):
        if place is not None:
            ids.insert(place, format_id(ends[channel]))
    listed = '", "'.join(ids)
    return f'{{"ids": ["{listed}"]}}\n'


def _admitted(service: Service, grant: Grant) -> None:
    """Count a publish request against its rate. Raises Problem (429)."""
    wait = service.rate.wait(grant.subject)
    if wait:
        raise Problem(
            429,
            f"at most {service.settings.sse_publish_rate:g} publish requests a second for each key (SSE_PUBLISH_RATE)",
            headers={"Retry-After": f"{wait:.0f}"},
        )


def _trace(service: Service, environ: dict[str, Any]) -> str | None:
    """Return the trace to store with the events, if any. The access log then names it, too."""
    header = environ.get("HTTP_TRACEPARENT")
    trace = None if header is None else service.trace(header)
    if trace is not None:
        environ[TRACE] = trace_id(trace)
    return trace


def _body(request: Request, limit: int, what: str, setting: str) -> bytes:
    """Read the request's body, at most ``limit`` bytes.

    Raises Problem: 413 if it is longer, 400 if it ends early.
    """
    length = request.content_length
    if length is None:
        body = request.stream.read(limit + 1)  # a chunked body does not declare its length
    else:
        body = b"" if length > limit else request.stream.read(length)
    if len(body) > limit or (length is not None and length > limit):
        raise Problem(413, f"{what} is at most {limit} bytes ({setting})", limit=limit)
    if length is not None and len(body) < length:
        raise Problem(400, f"the body ended after {len(body)} of {length} bytes")
    return body


# ── checks of body and headers ───────────────────────────────────────────────────────────────────────────────

# Printable ASCII, as in the IETF draft's string form of the header. At most 255, so that an index entry stays small.
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")


def idempotency_key(value: str | None) -> str | None:
    """Check the Idempotency-Key header, and return it. Raises Problem (400)."""
    if value is not None and not KEY_PATTERN.fullmatch(value):
        raise Problem(400, "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces")
    return value


def single(channel: str, body: bytes, event: str | None, retry: str | None) -> Event:
    """Make the event of ``POST /events/<channel>``. Raises Problem (400)."""
    if retry is not None and not (retry.isascii() and retry.isdigit() and len(retry) <= 10):
        raise Problem(400, f"retry must be a number of milliseconds, digits only, not {retry[:32]!r}", field="retry")
    try:
        return Event(channel, decoded(body), event, None if retry is None else int(retry))
    except InvalidEvent as error:
        raise Problem(400, str(error), field=error.field) from None


def decoded(body: bytes) -> str:
    """Decode UTF-8. Raises Problem (400), which names the offset of the first bad byte."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8: bad byte at offset {error.start}", offset=error.start) from None
