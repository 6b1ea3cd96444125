"""The Flask extension, ``sse = SSE(app)``: :mod:`sse.web.service` for a Flask app and its views."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import flask

from . import registry
from .auth.cli import sse_commands
from .auth.hook import Grant, May
from .events.model import Event, check_channel, format_id
from .events.names import CANARY_CHANNEL
from .log import LogUnavailable, Usage
from .observe import access as accesslog
from .observe.environ import HUNG_UP, STREAM, WHY_LOST
from .runtime.cooperation import offload
from .runtime.redaction import redact
from .settings import Settings
from .streams.group import Subscription
from .streams.hub import Hub, Status
from .streams.pull import PullStream
from .streams.stream import OWN_CLIENT, CloseReason, Stream
from .web.fast_path import FastPath
from .web.routes import blueprint
from .web.service import Service
from .web.view_streams import STREAM_HEADERS, Body, Item


class SSE(Service):
    """Server-Sent Events for a Flask app: the routes under ``/events``, and :meth:`publish` and :meth:`response`
    for the app's own views.

    settings: read from ``app.config`` by default (docs/settings.md has the names).
    Raises SettingsError for an invalid setting.
    """

    app: flask.Flask

    def __init__(self, app: flask.Flask | None = None, settings: Settings | None = None) -> None:
        super().__init__()
        self._last_call = threading.Event()
        if app is not None:
            self.init_app(app, settings)

    def init_app(self, app: flask.Flask, settings: Settings | None = None) -> None:
        """Add the routes to ``app``, and this extension as ``app.extensions["sse"]``. Raises SettingsError."""
        if "sse" in app.extensions:
            raise RuntimeError("this app has an SSE extension already")
        self.configure(settings or Settings.from_mapping(app.config))
        self.app = app
        app.extensions["sse"] = self
        app.register_blueprint(blueprint)
        if self.settings.sse_otel:
            from .observe.otel import Spans  # here, because it is an optional extra and takes a second to import

            self.spans = Spans()
            self.spans.install(app, blueprint.name)
        app.wsgi_app = FastPath(app, self)  # type: ignore[method-assign]
        app.cli.add_command(sse_commands(lambda: self.settings))
        registry.register(self)

    # ── who may do what ─────────────────────────────────────────────────────────────────────────────────────

    #: What a function for :meth:`authorize` may return: ``return sse.Grant("alice", expires_in=600)``.
    Grant = Grant

    def authorize(self, may: May) -> May:
        """Register the app's own decision about who may do what, as a decorator.

            @sse.authorize
            def may(request, action, channels):
                return current_user.is_authenticated and all(c == f"user:{current_user.id}" for c in channels)

        It is called in the request's Flask context, once for each request: action is "publish", "subscribe" or
        "manage", and channels has all names and patterns of the request. It returns True or a :class:`Grant` to allow
        it, False to refuse it (403), and None to let keys and tokens decide. If it raises, the request is refused
        (500). Raises RuntimeError if there is one already.
        """
        if self.may is not None:
            raise RuntimeError("this extension has a function for authorize already")
        self.may = may
        return may

    # ── for an app's own views ────────────────────────────────────────────────────────────────────────────

    def publish(
        self,
        channel: str,
        data: str,
        event: str | None = None,
        retry: int | None = None,
        *,
        traceparent: str | None = None,
        close: bool = False,
    ) -> str:
        """Append one event; returns its id once the log holds it.

        retry: the client's reconnection time in milliseconds; traceparent: of the request that caused this publish; if
        sampled, the event's deliveries are logged; close: this is the channel's last event (:meth:`close`). Raises
        InvalidEvent, ChannelClosed, and LogUnavailable (:meth:`append`).
        """
        made = Event(channel, data, event, retry)
        positions = self.append([made], trace=self.trace(traceparent), close=(made.channel,) if close else ())
        return format_id(positions[0])

    def close(self, channel: str) -> str:
        """End a channel; returns the closing position once the log holds it.

        Its streams are sent what they are owed and ``stream-end``, and then end; clients that return are told not to
        come again. Nothing can be published to it until it is erased. Raises InvalidEvent for a name that cannot be
        one, ChannelClosed if it is closed already, and LogUnavailable.
        """
        (position,) = self.append([], close=(check_channel(channel),))
        return format_id(position)

    def response(self, iterable: Iterable[Item]) -> flask.Response:
        """Stream a view's own iterable of strings, :class:`sse.Message` or mappings as events.

        Sends heartbeats while the iterable is silent, and closes it when the client leaves. If it raises, the stream
        ends with an ``error`` event, and the traceback is logged. Call it in a view; the request stays available to
        the iterable.
        """
        environ = flask.request.environ
        settings = self.settings
        target = redact(environ.get("RAW_URI") or flask.request.full_path)

        @flask.copy_current_request_context
        def in_context(work: Callable[[], None]) -> None:
            work()

        began = 0.0

        def opened() -> None:
            nonlocal began
            began = time.monotonic()
            environ[STREAM] = True
            self.stats.opened += 1

        def closed(reason: CloseReason, events: int, size: int) -> None:
            self.stats.closed[reason] += 1
            self.stats.delivered += events
            self.stats.bytes_sent += size
            client = self.authenticator.client_address(environ)
            accesslog.response_ended(environ, client, target, reason, events, size, time.monotonic() - began)

        body = Body(
            iterable,
            run=in_context,
            heartbeat=settings.sse_heartbeat,
            retry_ms=settings.sse_retry,
            hung_up=environ.get(HUNG_UP),
            should_end=self._last_call.is_set,
            on_open=opened,
            on_close=closed,
            why_lost=environ.get(WHY_LOST, lambda: CloseReason.CLIENT),
        )
        return flask.Response(body, headers=STREAM_HEADERS)

    def end_responses(self) -> None:
        """End every :meth:`response` at its next item or check; called at the end of a drain."""
        self._last_call.set()

    # ── what health reads ───────────────────────────────────────────────────────

    def status(self) -> Status:
        """Return what this worker's hub is doing, without touching the log."""
        if self._hub is None:
            return Status(False, False, 0.0, 0, {}, False)
        return self._hub.status()

    def log_usage(self) -> Usage | None:
        """Return the space that the log uses and has left; None if it is not open or cannot tell. Waits for the log."""
        if self._log is None:
            return None
        try:
            return offload(self._log.usage)
        except LogUnavailable:
            return None  # the tailer has logged the error

    def attach(self, sock: socket.socket, channel: str = CANARY_CHANNEL) -> None:
        """Hand one end of a socket pair to the hub, as a real, close-delimited stream of a channel.

        The hub then owns the socket. Raises RuntimeError if this worker does not take streams over.
        """
        hub = self.hub
        if hub.sockets is None:
            raise RuntimeError("this worker does not take sockets over")
        stream = self._own_stream(hub, channel, pull=False)
        hub.sockets.adopt(stream, sock.detach())

    def open(self, channel: str = CANARY_CHANNEL) -> Iterator[bytes]:
        """Open the same stream as a generator of the bytes that it is sent."""
        stream = self._own_stream(self.hub, channel, pull=True)
        assert isinstance(stream, PullStream)
        return stream.chunks()

    @staticmethod
    def _own_stream(hub: Hub, channel: str, *, pull: bool) -> Stream:
        """Open a stream for the process itself, exempt from every limit and lease."""
        group = hub.join(Subscription(frozenset({channel})))
        now = time.monotonic()
        position = group.position(hub.window.position)
        never = float("inf")
        if pull:
            return PullStream(hub, group, position, now=now, ends_at=never, client=OWN_CLIENT)
        return Stream(group, position, now=now, ends_at=never, client=OWN_CLIENT, chunked=False)
