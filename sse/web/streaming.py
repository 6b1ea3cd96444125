"""What the routes do with a request: the translation between HTTP and the log or the hub.

No Flask context is needed here: :mod:`sse.web.routes` calls these from Flask's views, :mod:`sse.web.fast_path`
without them. What is refused is refused as a problem (RFC 9457), with the thing and the limit named.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec
from urllib.parse import unquote_to_bytes

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from ..auth import AccessDenied, Grant, address_bucket, client_address, cors_headers
from ..auth.decision import REASONS
from ..events.batch import format_ids
from ..events.model import InvalidEvent, MalformedCursor, check_channel, opening_block, parse_id, parse_since
from ..events.trace import trace_id
from ..log import IdempotencyConflict, LogUnavailable
from ..log.base import Stored
from ..observe import access as accesslog
from ..observe.request_id import HEADER, request_id
from ..streams.group import Subscription
from ..streams.hub import INJECTED_CHANNELS, Hub
from ..streams.pull import PullStream
from ..streams.stream import Stream, lease, spread_retry
from . import ndjson
from . import publishing as publish
from .problems import Problem, problem_of

if TYPE_CHECKING:
    from ..extension import SSE

P = ParamSpec("P")

logger = logging.getLogger("headwater")

# How long a stream that comes while the worker still reads its log is kept waiting, seconds, before it is sent away
# with a retry:.
START_PATIENCE: Final = 2.0

# Streams that were taken over are looked at once a second, in ticks: one is due that much before its token ends,
# seconds, so that it never outlives it.
TOKEN_MARGIN: Final = 1.1


def _one_log(sse: SSE, request: Request) -> None:
    """Refuse to serve a log that is in this process's memory where the server has others: what one acknowledges, the
    streams of another would never see. (Our worker refuses to start then; PEP 3333 has every server say so.) Raises
    Problem (500)."""
    if request.environ.get("wsgi.multiprocess") and not sse.log.shared:
        detail = "SSE_LOG=memory: is for one process, and this server has several"
        logger.error("%s: set sqlite:///… or redis://…", detail)
        raise Problem(500, detail)


# ── publishing ────────────────────────────────────────────────────────────────────────────────────────────────


# Why publish requests are refused: the label of sse_publishes_refused_total.
PUBLISH_REFUSALS: Final = (*REASONS, "rate", "size", "conflict", "log", "error")


def _counted(publishing: Callable[Concatenate[SSE, P], str]) -> Callable[Concatenate[SSE, P], str]:
    @wraps(publishing)
    def counting(sse: SSE, /, *args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return publishing(sse, *args, **kwargs)
        except LogUnavailable:
            raise  # counted where the log is asked, as an app's own publishing is
        except Exception as error:
            sse.stats.publishes_refused[_why_refused(error)] += 1
            raise

    return counting


def _why_refused(error: Exception) -> str:
    match error:
        case AccessDenied():
            return error.reason
        case IdempotencyConflict():
            return "conflict"
        case Problem(status=status) | HTTPException(code=status):
            return {413: "size", 429: "rate"}.get(status or 0, "invalid")
    return "error"


@_counted
def publish_event(sse: SSE, request: Request, channel: str) -> str:
    """The whole of a single publish; returns the answer's JSON. Raises what :func:`refusal` knows."""
    _one_log(sse, request)
    _checked_channel(channel)
    _admitted(sse, sse.authenticator.may_publish(request, (channel,)))
    kind = retry = None
    if request.environ.get("QUERY_STRING"):
        _check_query(request)
        kind, retry = request.args.get("event"), request.args.get("retry")
    body = _body(request, sse.settings.sse_max_event_bytes, "an event", "SSE_MAX_EVENT_BYTES")
    event = publish.single(channel, body, kind, retry)
    key = publish.idempotency_key(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    (position,) = sse.append([event], key=key, trace=_trace(sse, request.environ))
    # An id and a checked channel hold nothing that JSON would escape.
    return f'{{"id": "{position >> 20}-{position & 0xFFFFF}", "channel": "{channel}"}}\n'


@_counted
def publish_batch(sse: SSE, request: Request) -> str:
    """The whole of a batch; returns the answer's JSON. Raises what :func:`refusal` knows."""
    _one_log(sse, request)
    if request.mimetype != "application/x-ndjson":
        accepted = {"Accept-Post": "application/x-ndjson"}
        raise Problem(415, "a batch is application/x-ndjson; one event goes to /events/<channel>", headers=accepted)
    limits = sse.settings
    # Who may not publish at all is refused before a body of megabytes is read.
    _admitted(sse, sse.authenticator.may_publish(request, ()))
    body = _body(request, limits.sse_max_batch_bytes, "a batch", "SSE_MAX_BATCH_BYTES")
    events = ndjson.batch(
        body, max_events=limits.sse_max_batch_events, max_event_bytes=limits.sse_max_event_bytes
    )
    sse.authenticator.may_publish(request, {event.channel for event in events})
    key = publish.idempotency_key(request.headers.get("Idempotency-Key"))
    positions = sse.append(events, key=key, trace=_trace(sse, request.environ))
    ids = '", "'.join(format_ids(positions))
    return f'{{"ids": ["{ids}"]}}\n'


def _admitted(sse: SSE, grant: Grant) -> None:
    """Count a publish request. Raises Problem (429)."""
    wait = sse.rate.wait(grant.subject)
    if wait:
        raise Problem(
            429,
            f"at most {sse.settings.sse_publish_rate:g} publish requests a second for each key (SSE_PUBLISH_RATE)",
            headers={"Retry-After": f"{wait:.0f}"},
        )


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
    if length is None:
        body = request.stream.read(limit + 1)  # one more than allowed: a chunked body says no length
    else:
        body = b"" if length > limit else request.stream.read(length)
    if len(body) > limit or (length is not None and length > limit):
        raise Problem(413, f"{what} is at most {limit} bytes ({setting})", limit=limit)
    if length is not None and len(body) < length:
        raise Problem(400, f"the body ended after {len(body)} of {length} bytes")
    return body


# ── streaming ─────────────────────────────────────────────────────────────────────────────────────────────────


def open_stream(sse: SSE, request: Request, channels: tuple[str, ...]) -> Iterable[bytes]:
    """The body of a stream of these channels, whose answer is 200 with ``STREAM_HEADERS``; it must be closed, as WSGI
    has it. Raises what :func:`refusal` knows."""
    _one_log(sse, request)
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
    accept = request.environ.get("HTTP_ACCEPT")
    # Most send one of these: an EventSource the first, curl the second.
    if accept not in (None, "text/event-stream", "*/*") and not accepts_stream(accept):
        raise Problem(406, "this is a text/event-stream, which the Accept header excludes")
    types = None
    if request.query_string:
        _check_query(request)
        types = frozenset(request.args.getlist("event")) or None
    if types and "" in types:
        raise Problem(400, "event: a type has at least one character; leave event out to get all", field="event")
    grant = sse.authenticator.may_subscribe(request, channels)
    if request.method == "HEAD":
        # Not a body of length 0: a stream has no length (RFC 9110 §8.6).
        return iter(())
    return _open(sse, request, Subscription(frozenset(channels), types), grant)


# The ranges that text/event-stream falls into, the most specific first: that one's weight counts (RFC 9110 §12.5.1).
# `*` is what old JDKs send for `*/*`.
_RANGES: Final = (("text/event-stream",), ("text/*",), ("*/*", "*"))


def accepts_stream(accept: str) -> bool:
    """Tell whether an Accept header allows text/event-stream, whatever parameters it names (a charset, a version).

    Lenient about weights (`q=.2`, which HttpURLConnection sent for years): only a weight of zero excludes.
    """
    allowed: dict[str, bool] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name:
            weights = [value.strip() for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"]
            allowed[name] = allowed.get(name, False) or not (weights and _is_zero(weights[0]))
    return not allowed or next((allowed[name] for names in _RANGES for name in names if name in allowed), False)


def _is_zero(weight: str) -> bool:
    return bool(weight) and not weight.strip("0.")


def _open(sse: SSE, request: Request, subscription: Subscription, grant: Grant) -> Iterable[bytes]:
    hub = sse.hub
    client = client_address(request.environ, sse.trusted_networks)
    if sse.settings.sse_max_streams_per_ip:
        # The limit is a site's: whoever has one IPv6 address has 2^64 of them. (The access log then has the /64, too.)
        client = address_bucket(client)
    asked = _cursor(request)
    if not hub.wait_ready(START_PATIENCE):
        hub.stats.refused["log"] += 1
        return _send_away(sse, asked)
    expires_in = None if grant.expires_at is None else grant.expires_at - time.time() - TOKEN_MARGIN
    if expires_in is not None and expires_in <= 0:
        hub.stats.refused["token"] += 1
        return _send_away(sse, asked)  # no time is left to end it in; when it comes back, the answer is 401
    if hub.admit(client, count=False) is not None:
        return _send_away(sse, asked)
    return _serve(sse, request.environ, subscription, client, expires_in, asked)


def _serve(
    sse: SSE,
    environ: dict[str, Any],
    subscription: Subscription,
    client: str,
    expires_in: float | None,
    asked: tuple[str | None, int | None],
) -> Iterator[bytes]:
    """The body of a stream: the opening, then whoever serves it from there on.

    It takes its place among SSE_MAX_STREAMS with its first byte and not before: a response that a hook of the app
    replaces, or that is lost with an exception, is dropped without being closed, and would keep its place for ever.
    """
    hub = sse.hub
    if hub.admit(client) is not None:
        yield from _send_away(sse, asked)
        return
    now = time.monotonic()
    ends_at, ends_as = lease(now, sse.settings.sse_max_stream_age, expires_in)
    # Until the worker takes the connection over, if it does.
    stream = Stream(
        hub.join(subscription),
        0,
        now=now,
        ends_at=ends_at,
        ends_as=ends_as,
        client=client,
        chunked=environ.get("SERVER_PROTOCOL") != "HTTP/1.0",
        request_id=request_id(environ),
    )
    try:
        start = hub.replay.resolve(stream.group, *asked)
    except LogUnavailable:
        # Only the log could say where this client was; a 503 would make an EventSource give up for ever.
        hub.leave(stream)
        hub.stats.refused["log"] += 1
        yield from _send_away(sse, asked)
        return
    except BaseException:
        hub.leave(stream)
        raise
    stream.cursor = start.cursor
    hub.stats.opened += 1
    environ["sse.stream"] = True  # it logs itself at its end
    opening = opening_block(start.cursor, sse.settings.sse_retry, time.time_ns() // 1_000_000) + (start.reset or b"")
    try:
        yield opening
    except BaseException:
        # The client went before a byte of it could be sent; nobody else will account for this stream.
        hub.closed(stream, "client")
        raise
    takeover: Callable[[Hub, Stream, int], bool] | None = environ.get("sse.takeover")
    if takeover is None or not takeover(hub, stream, len(opening)):
        hung_up, why_lost = environ.get("sse.hung_up"), environ.get("sse.why_lost")
        yield from PullStream.instead_of(stream, hub, hung_up=hung_up, why_lost=why_lost).chunks()


def _send_away(sse: SSE, asked: tuple[str | None, int | None]) -> Iterable[bytes]:
    """A stream that cannot be had now: 200, an opening with a randomised ``retry:`` and a clean end, after which an
    EventSource reconnects; on any other status it gives up for ever (WHATWG HTML §9.2.3).

    A client that came without a cursor is given one: else it would miss what happens until it is let in. It gets its
    own cursor back if it has one, and none if that is malformed, or before the worker has read the log."""
    requested, position = asked
    if requested is None:
        position = sse.hub.window.position or None
    return (opening_block(position, spread_retry(sse.settings.sse_retry), time.time_ns() // 1_000_000),)


def _checked_channel(channel: str, *, reading: bool = False) -> str:
    try:
        return check_channel(channel, reserved_ok=reading and channel in INJECTED_CHANNELS)
    except InvalidEvent as error:
        raise Problem(400, str(error), field="channel") from None


def _cursor(request: Request) -> tuple[str | None, int | None]:
    """Where the client asks to begin: as it said it, and parsed (None when it cannot be). The header first: it is what
    a reconnecting EventSource sends, while the query is still that of its first connection."""
    header = request.environ.get("HTTP_LAST_EVENT_ID")
    if header:
        return header, _parsed(parse_id, header)
    if not request.query_string:
        return None, None
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


def common_headers(sse: SSE, environ: dict[str, Any]) -> dict[str, str]:
    """What every answer has beside its own headers."""
    headers = cors_headers(sse.settings, environ.get("HTTP_ORIGIN"))
    # Our own worker names every answer, those of other views and Flask's own errors, too.
    if "sse.hung_up" not in environ:
        headers[HEADER] = request_id(environ)
    return headers


# What a publisher is told, by what is known (`LogUnavailable.stored`).
_NOT_STORED: Final[dict[Stored, str]] = {
    "no": "the log cannot be written now, nothing was stored. Repeating is safe, and with an Idempotency-Key always",
    "unknown": "the log did not confirm in time: this may have been stored or not. Repeating it is safe with the "
    "Idempotency-Key that it had; without one it may be stored twice",
}


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
            return Problem(503, _NOT_STORED[error.stored], headers=headers, stored=error.stored).response()
        case IdempotencyConflict():
            return Problem(422, "this Idempotency-Key was used with another body").response()
        case HTTPException():
            return problem_of(error)
    return None
