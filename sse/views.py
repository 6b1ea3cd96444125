"""The routes: publishing and streaming (DESIGN section 5). Everything here is the translation between HTTP and the
log or the hub; what it refuses it refuses as a problem (RFC 9457), with the thing and the limit named."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from sse import accesslog, publish
from sse.auth import AccessDenied, Grant, address_bucket, client_address, cors_headers
from sse.event import InvalidEvent, MalformedCursor, check_channel, opening_block, parse_id, parse_since, retry_block
from sse.group import Subscription
from sse.hub import INJECTED_CHANNELS, Hub
from sse.log import IdempotencyConflict, LogUnavailable
from sse.problems import Problem, problem_of
from sse.pull import PullStream
from sse.replay import Start
from sse.request_id import HEADER, request_id
from sse.responder import STREAM_HEADERS
from sse.stream import OPENING, Stream, lease, spread_retry
from sse.trace import trace_id

if TYPE_CHECKING:
    from sse.extension import SSE

blueprint = Blueprint("sse", __name__)

# How long a stream that comes while the worker still reads its log is kept waiting, seconds, before it is sent away
# with a retry:.
START_PATIENCE: Final = 2.0

# Streams that were taken over are looked at once a second, in ticks: one is due that much before its token ends,
# seconds, so that it never outlives it.
TOKEN_MARGIN: Final = 1.1


def _sse() -> SSE:
    extension: SSE = current_app.extensions["sse"]
    return extension


# ── publishing ────────────────────────────────────────────────────────────────────────────────────────────────


@blueprint.post("/events/<channel>", provide_automatic_options=False)
def publish_one(channel: str) -> Response:
    """Append the body, verbatim, to a channel: 201 once the log holds it."""
    _check_path(request)
    return Response(publish_event(_sse(), request, channel), 201, mimetype="application/json")


def publish_event(sse: SSE, request: Request, channel: str) -> str:
    """The whole of a single publish; returns the answer's JSON. Needs no context: :mod:`sse.lane` calls it, too.

    Raises what :func:`refusal` knows.
    """
    _checked_channel(channel)
    _admitted(sse, sse.authenticator.may_publish(request, (channel,)))
    kind = retry = None
    if request.query_string:
        _check_query(request)
        kind, retry = request.args.get("event"), request.args.get("retry")
    body = _body(request, sse.settings.sse_max_event_bytes, "an event", "SSE_MAX_EVENT_BYTES")
    event = publish.single(channel, body, kind, retry)
    key = publish.idempotency_key(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    (position,) = sse.append([event], key=key, trace=_trace(sse, request.environ))
    # An id and a checked channel hold nothing that JSON would escape.
    return f'{{"id": "{position >> 20}-{position & 0xFFFFF}", "channel": "{channel}"}}\n'


@blueprint.post("/events", provide_automatic_options=False)
def publish_batch() -> Response:
    """Append a batch (NDJSON), all or nothing and in order."""
    _check_path(request)
    sse = _sse()
    if request.mimetype != "application/x-ndjson":
        accepted = {"Accept-Post": "application/x-ndjson"}
        raise Problem(415, "a batch is application/x-ndjson; one event goes to /events/<channel>", headers=accepted)
    limits = sse.settings
    # Who may not publish at all is refused before a body of megabytes is read.
    _admitted(sse, sse.authenticator.may_publish(request, ()))
    body = _body(request, limits.sse_max_batch_bytes, "a batch", "SSE_MAX_BATCH_BYTES")
    events = publish.batch(
        body, max_events=limits.sse_max_batch_events, max_event_bytes=limits.sse_max_event_bytes
    )
    sse.authenticator.may_publish(request, {event.channel for event in events})
    key = publish.idempotency_key(request.headers.get("Idempotency-Key"))
    positions = sse.append(events, key=key, trace=_trace(sse, request.environ))
    ids = ", ".join([f'"{position >> 20}-{position & 0xFFFFF}"' for position in positions])
    return Response(f'{{"ids": [{ids}]}}\n', 201, mimetype="application/json")


def _admitted(sse: SSE, grant: Grant) -> None:
    """Count a publish request. Raises Problem (429)."""
    wait = sse.rate.wait(grant.subject)
    if wait:
        raise Problem(
            429,
            f"at most {sse.settings.sse_publish_rate:g} publish requests a second for each key (SSE_PUBLISH_RATE)",
            headers={"Retry-After": f"{wait:.0f}"},
        )


def _check_path(request: Request) -> None:
    """Refuse ``//events/a`` and ``/%2fevents/a``, which Werkzeug takes for ``/events/a`` (threat: a proxy's rules for
    the paths of ``/events`` do not see these). Raises Problem (404)."""
    if request.environ["PATH_INFO"].startswith("//"):
        raise Problem(404, "the path begins with more than one slash")


def _trace(sse: SSE, environ: dict[str, Any]) -> str | None:
    """The request's trace, if its events are to carry it; the request's log line then has it, too."""
    header = environ.get("HTTP_TRACEPARENT")
    trace = None if header is None else sse.trace(header)
    if trace is not None:
        environ[accesslog.TRACE] = trace_id(trace)
    return trace


def _check_query(request: Request) -> None:
    """Refuse a query that is not UTF-8: read leniently, it would be another event type than was asked for. Raises
    Problem (400)."""
    query = request.query_string
    try:
        (unquote_to_bytes(query) if b"%" in query else query).decode()
    except UnicodeDecodeError:
        raise Problem(400, "the query is not UTF-8") from None


def _body(request: Request, limit: int, what: str, setting: str) -> bytes:
    """The request's body, at most ``limit`` bytes of it. Raises Problem (413)."""
    length = request.content_length
    # One more than allowed: a chunked body says no length.
    body = b"" if length is not None and length > limit else request.stream.read(limit + 1)
    if len(body) > limit or (length is not None and length > limit):
        raise Problem(413, f"{what} is at most {limit} bytes ({setting})", limit=limit)
    if length is not None and len(body) < length:
        raise Problem(400, f"the body ended after {len(body)} of {length} bytes")
    return body


# ── streaming ─────────────────────────────────────────────────────────────────────────────────────────────────


@blueprint.get("/events/<channel>", provide_automatic_options=False)
def stream_one(channel: str) -> Response:
    """Stream one channel."""
    return _stream((channel,))


@blueprint.get("/events", provide_automatic_options=False)
def stream_many() -> Response:
    """Stream several channels, in id order across them."""
    return _stream(tuple(request.args.getlist("channel")))


def _stream(channels: tuple[str, ...]) -> Response:
    _check_path(request)
    sse = _sse()
    limit = sse.settings.sse_max_channels
    if not channels:
        raise Problem(400, "name at least one channel: /events/<channel> or /events?channel=a&channel=b")
    if len(channels) > limit:
        detail = f"a stream has at most {limit} channels (SSE_MAX_CHANNELS), not {len(channels)}"
        raise Problem(400, detail, limit=limit)
    for channel in channels:
        _checked_channel(channel, reading=True)
    if len(set(channels)) > 1 and not INJECTED_CHANNELS.isdisjoint(channels):
        raise Problem(400, f"a reserved channel ({', '.join(sorted(INJECTED_CHANNELS))}) is streamed alone")
    if request.accept_mimetypes and not request.accept_mimetypes["text/event-stream"]:
        raise Problem(406, "this is a text/event-stream, which the Accept header excludes")
    _check_query(request)
    types = frozenset(request.args.getlist("event")) or None
    if types and "" in types:
        raise Problem(400, "event: a type has at least one character; leave event out to get all", field="event")
    grant = sse.authenticator.may_subscribe(request, channels)
    if request.method == "HEAD":
        # Not a body of length 0: a stream has no length (RFC 9110 §8.6).
        return Response(iter(()), headers=STREAM_HEADERS)
    return _open(sse, Subscription(frozenset(channels), types), grant)


def _open(sse: SSE, subscription: Subscription, grant: Grant) -> Response:
    hub = sse.hub
    client = client_address(request.environ, sse.trusted_networks)
    if sse.settings.sse_max_streams_per_ip:
        # The limit is a site's: whoever has one IPv6 address has 2^64 of them. (The access log then has the /64, too.)
        client = address_bucket(client)
    if not hub.wait_ready(START_PATIENCE):
        return _send_away(sse)
    expires_in = None if grant.expires_at is None else grant.expires_at - time.time() - TOKEN_MARGIN
    if expires_in is not None and expires_in <= 0:
        return _send_away(sse)  # no time is left to end it in; when it comes back, the answer is 401
    if hub.admit(client) is not None:
        return _send_away(sse)
    now = time.monotonic()
    ends_at = lease(now, sse.settings.sse_max_stream_age, expires_in)
    takeover: Callable[[Hub, Stream], None] | None = request.environ.get("sse.takeover")
    group = hub.join(subscription)
    named = request_id(request.environ)
    stream: Stream
    if takeover is None:
        hung_up, why_lost = request.environ.get("sse.hung_up"), request.environ.get("sse.why_lost")
        stream = PullStream(
            hub, group, 0, now=now, ends_at=ends_at, client=client, hung_up=hung_up, why_lost=why_lost, request_id=named
        )
    else:
        chunked = request.environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
        stream = Stream(group, 0, now=now, ends_at=ends_at, client=client, chunked=chunked, request_id=named)
    try:
        start = hub.replay.resolve(group, *_cursor())
    except LogUnavailable:
        # Only the log could say where this client was; a 503 would make an EventSource give up for ever.
        hub.leave(stream)
        hub.stats.refused["log"] += 1
        return _send_away(sse)
    except BaseException:
        hub.leave(stream)
        raise
    stream.cursor = start.cursor
    hub.stats.opened += 1
    request.environ["sse.stream"] = True  # it logs itself at its end
    response = Response(_chunks(hub, stream, start, takeover), headers=STREAM_HEADERS)

    @response.call_on_close
    def _() -> None:
        if stream.state == OPENING:
            # The client went before a byte of it could be sent; nobody else will account for this stream.
            hub.closed(stream, "client")

    return response


def _chunks(
    hub: Hub, stream: Stream, start: Start, takeover: Callable[[Hub, Stream], None] | None
) -> Iterator[bytes]:
    """The response's body: the opening, then whoever serves this stream from here on."""
    yield opening_block(start.cursor, hub.settings.sse_retry) + (start.reset or b"")
    if takeover is not None:
        takeover(hub, stream)
    elif isinstance(stream, PullStream):
        yield from stream.chunks()


def _send_away(sse: SSE) -> Response:
    """A stream that cannot be had now: 200, a randomised ``retry:`` and a clean end, which an EventSource takes for a
    reconnect; on any other status it gives up for ever (WHATWG HTML §9.2.3).

    A client that came without a cursor is given one: else it would miss what happens until it is let in."""
    retry = spread_retry(sse.settings.sse_retry)
    position = sse.hub.window.position
    block = opening_block(position, retry) if position and _cursor()[0] is None else retry_block(retry)
    return Response(block, headers=STREAM_HEADERS)


def _checked_channel(channel: str, *, reading: bool = False) -> str:
    try:
        return check_channel(channel, reserved_ok=reading and channel in INJECTED_CHANNELS)
    except InvalidEvent as error:
        raise Problem(400, str(error), field="channel") from None


def _cursor() -> tuple[str | None, int | None]:
    """Where the client asks to begin: as it said it, and parsed (None when it cannot be). The header first: it is what
    a reconnecting EventSource sends, while the query is still that of its first connection."""
    header = request.headers.get("Last-Event-ID")
    if header:
        return header, _parsed(parse_id, header)
    for name in ("lastEventId", "last_event_id"):
        value = request.args.get(name)
        if value:
            return value, _parsed(parse_id, value)
    since = request.args.get("since")
    return (since, _parsed(parse_since, since)) if since else (None, None)


def _parsed(parse: Callable[[str], int], text: str) -> int | None:
    try:
        return parse(text)
    except MalformedCursor:
        return None


# ── what every answer has ─────────────────────────────────────────────────────────────────────────────────────


@blueprint.route("/events", methods=["OPTIONS"])
@blueprint.route("/events/<channel>", methods=["OPTIONS"])
def options(channel: str | None = None) -> Response:
    """Preflight (Fetch §3.2.2) and plain OPTIONS."""
    response = Response(status=204)
    response.headers["Allow"] = "GET, HEAD, OPTIONS, POST"
    response.headers.update(cors_headers(_sse().settings, request.headers.get("Origin"), preflight=True))
    return response


def common_headers(sse: SSE, environ: dict[str, Any]) -> dict[str, str]:
    """What every answer has beside its own headers."""
    headers = cors_headers(sse.settings, environ.get("HTTP_ORIGIN"))
    # Our own worker names every answer, those of other views and Flask's own errors, too.
    if "sse.hung_up" not in environ:
        headers[HEADER] = request_id(environ)
    return headers


@blueprint.after_request
def _common(response: Response) -> Response:
    headers = common_headers(_sse(), request.environ)
    if request.method == "OPTIONS":
        headers = {name: value for name, value in headers.items() if name == HEADER}
    response.headers.update(headers)
    return response


def refusal(sse: SSE, error: Exception) -> Response | None:
    """The answer to what publishing and streaming raise; None for what is a bug."""
    match error:
        case Problem():
            return error.response()
        case AccessDenied():
            return Problem(error.status, error.detail, headers=error.headers).response()
        case LogUnavailable():
            sse.complain(error)  # it names files and hosts, which are the operator's business and not the client's
            headers = {"Retry-After": str(max(1, round(error.retry_after)))}
            return Problem(503, "the log cannot be written now, nothing was stored", headers=headers).response()
        case IdempotencyConflict():
            return Problem(422, "this Idempotency-Key was used with another body").response()
        case HTTPException():
            return problem_of(error)
    return None


@blueprint.errorhandler(Problem)
@blueprint.errorhandler(AccessDenied)
@blueprint.errorhandler(LogUnavailable)
@blueprint.errorhandler(IdempotencyConflict)
@blueprint.errorhandler(HTTPException)
def _on_error(error: Exception) -> Response:
    response = refusal(_sse(), error)
    assert response is not None
    return response
