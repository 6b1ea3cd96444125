"""Stream over HTTP: turn a request into a stream and its body. Needs no Flask context."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from werkzeug.wrappers import Request

from ..auth.address import address_bucket
from ..auth.decision import Grant
from ..events.model import format_id
from ..events.names import INJECTED_CHANNELS
from ..events.patterns import reduced
from ..log import LogUnavailable
from ..observe.environ import GZIP, HUNG_UP, STREAM, TAKEOVER, WHY_LOST
from ..observe.request_id import request_id
from ..streams.group import Subscription
from ..streams.gzip_stream import GzipStream
from ..streams.hub import Hub
from ..streams.pull import PullStream
from ..streams.stream import Backlog, CloseReason, Stream, lease, spread_retry
from .access import allowed
from .answers import NoContent, check_log
from .compression import wants_gzip
from .problems import Problem
from .query import (
    accepts_stream,
    asked_cursor,
    asked_page,
    asked_types,
    check_query,
    checked_channels,
    flag,
    resumed_cursor,
)
from .servers import refuse_or_warn
from .service import Service

# Seconds that a new stream waits for a worker that is still reading its log, before it is sent away with ``retry:``.
START_PATIENCE: Final = 2.0

# End a token's stream this many seconds early, so it never outlives the token: the worker looks at the leases of
# streams that were taken over once a second.
TOKEN_MARGIN: Final = 1.1

_OF_THE_VIEW: Final = Grant("view")


def open_stream(service: Service, request: Request, channels: tuple[str, ...]) -> Iterable[bytes]:
    """Return the body of a stream of these channels, for an answer 200 with ``STREAM_HEADERS``.

    The server must close it, as WSGI requires. Raises the errors that :func:`sse.web.answers.refusal` knows.
    """
    began = time.monotonic()
    check_log(service, request)
    checked_channels(channels, service.settings.sse_max_channels)
    if len(set(channels)) > 1 and not INJECTED_CHANNELS.isdisjoint(channels):
        raise Problem(400, f"a reserved channel ({', '.join(sorted(INJECTED_CHANNELS))}) is streamed alone")
    accept = request.environ.get("HTTP_ACCEPT")
    # The usual values need no parsing: an EventSource sends the first, curl the second.
    if accept not in (None, "text/event-stream", "*/*") and not accepts_stream(accept):
        raise Problem(406, "this is a text/event-stream, which the Accept header excludes")
    types = None
    envelope = plain = False
    if request.query_string:
        check_query(request)
        types = asked_types(request)
        envelope, plain = flag(request, "envelope"), flag(request, "plain")
        asked_page(request)  # means nothing to a stream, but must be valid
    try:
        grant = allowed(service, request, "subscribe", channels)
    except LogUnavailable:
        # Only the log knows whose tokens were revoked. Not a 503, at which an EventSource gives up for ever.
        service.hub.stats.refused["log"] += 1
        return _send_away(service, asked_cursor(request), Subscription(frozenset(channels), types, envelope, plain))
    if not INJECTED_CHANNELS.isdisjoint(channels):
        envelope = plain = False  # its blocks are not events, which have a form
    subscription = Subscription(reduced(channels), types, envelope, plain)
    return _open(service, request, subscription, grant, asked_cursor(request), began)


def open_from(service: Service, request: Request, channel: str, after: int, *, plain: bool) -> Iterable[bytes]:
    """Return the body of a channel's stream for an app's own view, which has decided who may read it.

    after: where it begins, unless the client resumes it. Raises the errors that :func:`sse.web.answers.refusal` knows.
    """
    began = time.monotonic()
    check_log(service, request)
    asked = resumed_cursor(request)
    if asked[0] is None:
        asked = format_id(after), after
    return _open(service, request, Subscription(frozenset({channel}), plain=plain), _OF_THE_VIEW, asked, began)


def _open(
    service: Service,
    request: Request,
    subscription: Subscription,
    grant: Grant,
    asked: tuple[str | None, int | None],
    began: float,
) -> Iterable[bytes]:
    """began: when the request began, monotonic seconds: what is revoked from then on ends the stream."""
    hub = service.hub
    if hub.ends.is_over(subscription, *asked):
        raise NoContent
    if request.method == "HEAD":
        # No Content-Length of 0: a stream has no length (RFC 9110 §8.6).
        return iter(())
    places = refuse_or_warn(request.environ)
    if places is not None:
        hub.admission.limit_pulling(places)
    client = service.authenticator.client_address(request.environ)
    if service.settings.sse_max_streams_per_ip:
        # Count IPv6 clients by /64, because each has 2^64 addresses. (The access log then shows the /64, too.)
        client = address_bucket(client)
    if not hub.wait_ready(START_PATIENCE):
        hub.stats.refused["log"] += 1
        return _send_away(service, asked, subscription)
    expires_in = None if grant.expires_at is None else grant.expires_at - time.time() - TOKEN_MARGIN
    if expires_in is not None and expires_in <= 0:
        hub.stats.refused["token"] += 1
        # The token is about to expire; when the client returns, it gets 401.
        return _send_away(service, asked, subscription)
    if hub.admission.admit(client, count=False) is not None:
        return _send_away(service, asked, subscription)
    return _serve(service, request.environ, subscription, client, grant, expires_in, asked, began)


def _serve(
    service: Service,
    environ: dict[str, Any],
    subscription: Subscription,
    client: str,
    grant: Grant,
    expires_in: float | None,
    asked: tuple[str | None, int | None],
    began: float,
) -> Iterator[bytes]:
    """Yield the opening, then hand the stream to the fan-out, or serve it here.

    The stream counts towards SSE_MAX_STREAMS only from its first byte. If a hook of the app replaces the response, or
    an exception discards it, nobody closes it, and it would count for ever.
    """
    hub = service.hub
    if hub.admission.admit(client) is not None:
        yield from _send_away(service, asked, subscription)
        return
    ends_at, ends_as = lease(time.monotonic(), service.settings.sse_max_stream_age, expires_in)
    ask: Callable[[], Callable[[], None] | None] | None = environ.get(GZIP)
    gzip = ask() if ask is not None and wants_gzip(service.settings, environ, grant) else None
    if gzip is not None:
        subscription = subscription._replace(gzip=True)
    # A PullStream replaces it below, unless the worker takes the connection over.
    stream = (Stream if gzip is None else GzipStream)(
        hub.join(subscription),
        0,
        now=began,
        ends_at=ends_at,
        ends_as=ends_as,
        client=client,
        chunked=environ.get("SERVER_PROTOCOL") != "HTTP/1.0",
        owner=grant.owner,
        request_id=request_id(environ),
    )
    try:
        start = hub.replay.resolve(stream.group, *asked)
    except LogUnavailable:
        # Only the log knows where this client was. Not a 503, at which an EventSource gives up for ever.
        hub.leave(stream)
        hub.stats.refused["log"] += 1
        yield from _send_away(service, asked, subscription)
        return
    except BaseException:
        hub.leave(stream)
        raise
    stream.cursor = start.cursor
    stream.backlog = Backlog(began, told=start.told)
    hub.stats.opened += 1
    environ[STREAM] = True
    opening = stream.group.form.opening(start.cursor, service.settings.sse_retry, time.time_ns() // 1_000_000)
    opening = stream.opening(opening + (start.reset or b""))
    if gzip is not None:
        gzip()
    try:
        yield opening
    except BaseException:
        # The client left before the first byte was sent, so nobody else will count this stream as closed.
        hub.closed(stream, CloseReason.CLIENT)
        raise
    takeover: Callable[[Hub, Stream, int], bool] | None = environ.get(TAKEOVER)
    if takeover is None or not takeover(hub, stream, len(opening)):
        if gzip is not None:
            hub.closed(stream, CloseReason.ERROR)
            raise RuntimeError("a stream that was declared to be gzip was not taken over")
        hung_up, why_lost = environ.get(HUNG_UP), environ.get(WHY_LOST)
        yield from PullStream.instead_of(stream, hub, hung_up=hung_up, why_lost=why_lost).chunks()


def _send_away(service: Service, asked: tuple[str | None, int | None], subscription: Subscription) -> Iterable[bytes]:
    """Return the body that sends a client away for now: an opening with a randomised ``retry:``, and a clean end.

    The status is 200, so that an EventSource reconnects; at any other it gives up for ever (WHATWG HTML §9.2.3).
    A client without a cursor gets the newest one, so that it misses nothing until it is let in, but none before the
    worker has read the log. A client with a cursor gets it back, unless it is malformed.
    """
    hub = service.hub
    requested, position = asked
    if requested is None:
        position = hub.window.position or None
    retry_ms = spread_retry(service.settings.sse_retry)
    form = hub.groups.forms.of(subscription.envelope, subscription.plain)
    return (form.sent_away(position, retry_ms, time.time_ns() // 1_000_000),)
