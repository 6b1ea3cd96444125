"""Streaming over HTTP: a request becomes a stream, and its body. No Flask context is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from werkzeug.wrappers import Request

from ..auth import Grant, address_bucket, client_address
from ..events.model import opening_block
from ..log import LogUnavailable
from ..observe.environ import HUNG_UP, STREAM, TAKEOVER, WHY_LOST
from ..observe.request_id import request_id
from ..streams.group import Subscription
from ..streams.hub import INJECTED_CHANNELS, Hub
from ..streams.pull import PullStream
from ..streams.stream import Stream, lease, spread_retry
from .answers import check_log
from .problems import Problem
from .query import accepts_stream, asked_cursor, check_query, checked_channel
from .service import Service

# How long a stream that comes while the worker still reads its log is kept waiting, seconds, before it is sent away
# with a retry:.
START_PATIENCE: Final = 2.0

# Streams that were taken over are looked at once a second, in ticks: one is due that much before its token ends,
# seconds, so that it never outlives it.
TOKEN_MARGIN: Final = 1.1


def open_stream(service: Service, request: Request, channels: tuple[str, ...]) -> Iterable[bytes]:
    """The body of a stream of these channels, whose answer is 200 with ``STREAM_HEADERS``; it must be closed, as WSGI
    has it. Raises what :func:`refusal` knows."""
    check_log(service, request)
    limit = service.settings.sse_max_channels
    if not channels:
        raise Problem(400, "name at least one channel: /events/<channel> or /events?channel=a&channel=b")
    if len(channels) > limit:
        detail = f"a stream has at most {limit} channels (SSE_MAX_CHANNELS), not {len(channels)}"
        raise Problem(400, detail, limit=limit)
    for channel in channels:
        checked_channel(channel, reading=True)
    if len(set(channels)) > 1 and not INJECTED_CHANNELS.isdisjoint(channels):
        raise Problem(400, f"a reserved channel ({', '.join(sorted(INJECTED_CHANNELS))}) is streamed alone")
    accept = request.environ.get("HTTP_ACCEPT")
    # Most send one of these: an EventSource the first, curl the second.
    if accept not in (None, "text/event-stream", "*/*") and not accepts_stream(accept):
        raise Problem(406, "this is a text/event-stream, which the Accept header excludes")
    types = None
    if request.query_string:
        check_query(request)
        types = frozenset(request.args.getlist("event")) or None
    if types and "" in types:
        raise Problem(400, "event: a type has at least one character; leave event out to get all", field="event")
    grant = service.authenticator.may_subscribe(request, channels)
    if request.method == "HEAD":
        # Not a body of length 0: a stream has no length (RFC 9110 §8.6).
        return iter(())
    return _open(service, request, Subscription(frozenset(channels), types), grant)


def _open(service: Service, request: Request, subscription: Subscription, grant: Grant) -> Iterable[bytes]:
    hub = service.hub
    client = client_address(request.environ, service.trusted_networks)
    if service.settings.sse_max_streams_per_ip:
        # The limit is a site's: whoever has one IPv6 address has 2^64 of them. (The access log then has the /64, too.)
        client = address_bucket(client)
    asked = asked_cursor(request)
    if not hub.wait_ready(START_PATIENCE):
        hub.stats.refused["log"] += 1
        return _send_away(service, asked)
    expires_in = None if grant.expires_at is None else grant.expires_at - time.time() - TOKEN_MARGIN
    if expires_in is not None and expires_in <= 0:
        hub.stats.refused["token"] += 1
        return _send_away(service, asked)  # no time is left to end it in; when it comes back, the answer is 401
    if hub.admit(client, count=False) is not None:
        return _send_away(service, asked)
    return _serve(service, request.environ, subscription, client, expires_in, asked)


def _serve(
    service: Service,
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
    hub = service.hub
    if hub.admit(client) is not None:
        yield from _send_away(service, asked)
        return
    now = time.monotonic()
    ends_at, ends_as = lease(now, service.settings.sse_max_stream_age, expires_in)
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
        yield from _send_away(service, asked)
        return
    except BaseException:
        hub.leave(stream)
        raise
    stream.cursor = start.cursor
    hub.stats.opened += 1
    environ[STREAM] = True  # it logs itself at its end
    opening = opening_block(start.cursor, service.settings.sse_retry, time.time_ns() // 1_000_000)
    opening += start.reset or b""
    try:
        yield opening
    except BaseException:
        # The client went before a byte of it could be sent; nobody else will account for this stream.
        hub.closed(stream, "client")
        raise
    takeover: Callable[[Hub, Stream, int], bool] | None = environ.get(TAKEOVER)
    if takeover is None or not takeover(hub, stream, len(opening)):
        hung_up, why_lost = environ.get(HUNG_UP), environ.get(WHY_LOST)
        yield from PullStream.instead_of(stream, hub, hung_up=hung_up, why_lost=why_lost).chunks()


def _send_away(service: Service, asked: tuple[str | None, int | None]) -> Iterable[bytes]:
    """A stream that cannot be had now: 200, an opening with a randomised ``retry:`` and a clean end, after which an
    EventSource reconnects; on any other status it gives up for ever (WHATWG HTML §9.2.3).

    A client that came without a cursor is given one: else it would miss what happens until it is let in. It gets its
    own cursor back if it has one, and none if that is malformed, or before the worker has read the log."""
    requested, position = asked
    if requested is None:
        position = service.hub.window.position or None
    return (opening_block(position, spread_retry(service.settings.sse_retry), time.time_ns() // 1_000_000),)
