"""What the extension is for one app: :mod:`sse.web.service` for a Flask app and its views."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flask
from flask.json.provider import DefaultJSONProvider

from . import registry
from .auth.cli import sse_commands
from .events.batch import format_ids
from .events.items import Item
from .events.model import Event, InvalidEvent, check_channel, format_id
from .events.names import CANARY_CHANNEL
from .log import LogUnavailable, Usage
from .observe import access as accesslog
from .observe.environ import HUNG_UP, STREAM, WHY_LOST
from .runs.states import RunActive, RunsFull
from .runtime.cooperation import offload
from .runtime.redaction import redact
from .settings import Settings
from .streams.group import Subscription
from .streams.hub import Hub, Status
from .streams.pull import PullStream
from .streams.stream import OWN_CLIENT, CloseReason, Stream
from .web.channels import Channel, every_channel
from .web.fast_path import FastPath
from .web.manage import Erased, erase, revoke
from .web.problems import Problem
from .web.publishing import KEY_PATTERN
from .web.routes import blueprint
from .web.runs import RunHandle, refused
from .web.servers import refuse_company, refuse_or_warn, running_server, warn
from .web.service import Service
from .web.view_streams import STREAM_HEADERS, Body


class AppSSE(Service):
    """One app's Server-Sent Events, ``app.extensions["sse"]``: its settings, log, hub and routes.

    :class:`sse.apps.SSE` makes it, and offers its methods to apps.
    """

    def __init__(self, app: flask.Flask, settings: Settings) -> None:
        super().__init__()
        self.app = app
        self._last_call = threading.Event()
        refuse_company(settings.sse_log)
        warn(running_server())
        self.configure(settings)
        blueprint.place(app, settings.sse_url_prefix)
        if settings.sse_otel:
            from .observe.otel import Spans  # here, because it is an optional extra and takes a second to import

            self.spans = Spans()
            self.spans.install(app, blueprint.name)
        # What a view of the app may raise: the blueprint has its own handlers.
        app.register_error_handler(Problem, Problem.response)
        app.register_error_handler(RunActive, refused)
        app.register_error_handler(RunsFull, refused)
        app.wsgi_app = FastPath(app, self)  # type: ignore[method-assign]
        app.cli.add_command(sse_commands(lambda: self.settings))
        app.extensions["sse"] = self
        registry.register(self)

    # ── for an app's own views ────────────────────────────────────────────────────────────────────────────

    def publish(
        self,
        channel: str,
        data: Any,
        event: str | None = None,
        retry: int | None = None,
        *,
        key: str | None = None,
        traceparent: str | None = None,
        close: bool = False,
    ) -> str:
        """Append one event; returns its id once the log holds it.

        data: text, or anything else that the app's JSON provider can write, which is sent as compact JSON.
        retry: the client's reconnection time in milliseconds.
        key: an idempotency key; the same publish again with it stores nothing, and returns the first one's id.
        traceparent: of the request that caused this publish; if sampled, the event's deliveries are logged.
        close: this is the channel's last event (:meth:`close`).

        Raises InvalidEvent, IdempotencyConflict, ChannelClosed, and LogUnavailable (:meth:`append`).
        """
        made = Event(channel, self._text(data), event, retry)
        trace, ends = self.trace(traceparent), (made.channel,) if close else ()
        return format_id(self.append([made], key=_checked_key(key), trace=trace, close=ends)[0])

    def publish_batch(
        self,
        events: Iterable[Event | Mapping[str, Any]],
        *,
        key: str | None = None,
        traceparent: str | None = None,
    ) -> list[str]:
        """Append several events in order, all or none; returns their ids once the log holds them.

        events: :class:`sse.Event`, or mappings with the members channel, data, event and retry. Otherwise as
        :meth:`publish`.
        """
        made = [event if isinstance(event, Event) else self._event(event) for event in events]
        return format_ids(self.append(made, key=_checked_key(key), trace=self.trace(traceparent)))

    def _event(self, members: Mapping[str, Any]) -> Event:
        if not {"channel", "data"} <= set(members) <= {"channel", "data", "event", "retry"}:
            raise InvalidEvent("event", f"has the members channel, data, event? and retry?, not {sorted(members)!r}")
        return Event(**{**members, "data": self._text(members["data"])})

    def _text(self, data: Any) -> str:
        """Return data as text: JSON, unless it is text. Raises InvalidEvent."""
        if isinstance(data, str):
            return data
        provider = self.app.json
        try:
            if isinstance(provider, DefaultJSONProvider):
                # As it is, but as short as can be, and without NaN, which no browser's JSON.parse takes.
                return provider.dumps(
                    data, separators=(",", ":"), ensure_ascii=False, sort_keys=False, allow_nan=False
                )
            return provider.dumps(data)
        except (TypeError, ValueError) as error:
            raise InvalidEvent("data", f"cannot be written as JSON: {error}") from error

    def close(self, channel: str) -> str:
        """End a channel; returns the closing position once the log holds it.

        Its streams are sent what they are owed and ``stream-end``, and then end; clients that return are told not to
        come again. Nothing can be published to it until it is erased. Raises InvalidEvent for a name that cannot be
        one, ChannelClosed if it is closed already, and LogUnavailable.
        """
        (position,) = self.append([], close=(check_channel(channel),))
        return format_id(position)

    def run(
        self, channel: str, iterable: Iterable[Item], *, key: str | None = None, close: bool = True
    ) -> RunHandle:
        """Start work whose stream outlives its reader, and return at once.

            run = sse.run("chat:42", tokens(prompt), key=request_id)
            return run.response()

        The iterable, of strings, :class:`sse.Message` or mappings, runs in this worker, apart from any request but in
        the app's context. Each item is appended to the channel; its end is an event ``run``, with which the channel is
        closed. close: False leaves it open, for further runs. key: the same key on the same channel gives the run that
        is there, running or ended, on whatever worker; the iterable is then closed without a look at it.

        Raises InvalidEvent for a name that cannot be a channel; RunActive if the channel has another run that has not
        ended (409 if a view does not catch it); RunsFull if this worker has too many (503); ChannelClosed;
        LogUnavailable.
        """
        info = self.runs.run(channel, iterable, key=key, close=close, in_context=self._in_app_context)
        return RunHandle(self, info)

    def _in_app_context(self, work: Callable[[], None]) -> None:
        with self.app.app_context():
            work()

    def find_run(self, run: str) -> RunHandle | None:
        """Return a run by its id, on whatever worker; None if nothing is known of it. Raises LogUnavailable.

        For a view whose request did not start the run: it lets the client watch on, or stops the run.
        """
        info = self.runs.find(run)
        return None if info is None else RunHandle(self, info)

    def stop_run(self, run: str) -> None:
        """Stop a run by its id, on whatever worker; nothing happens if it has ended. Raises LogUnavailable."""
        self.runs.stop(run)

    # ── what there is ───────────────────────────────────────────────────────────────────────────────────────

    def channels(self, prefix: str = "") -> list[Channel]:
        """Return the channels that have events or are closed, and whose names begin with ``prefix``, by name.

        Raises LogUnavailable.
        """
        return list(every_channel(self, prefix))

    def listeners(self, channel: str) -> int:
        """Return how many streams of all workers get this channel's events, as of at most 5 s ago.

        Raises LogUnavailable.
        """
        return self.hub.listeners().of(check_channel(channel))

    def erase(self, channel: str) -> Erased:
        """Remove a channel's events from the log and from every worker, and open the channel if it was closed.

        Returns when the log has let go of them. Workers drop theirs within a second; streams are told by a
        ``stream-reset``. Raises InvalidEvent for a name that cannot be a channel's, and LogUnavailable: then erase it
        again.
        """
        return erase(self, check_channel(channel))

    def disconnect(
        self, *, subject: str | None = None, channel: str | None = None, request_id: str | None = None
    ) -> str:
        """End the streams of a subject, of a channel, or of a request, on every worker; return the id of this command.

        Of several, all must apply. subject: a token's ``sub``, or that of a :class:`Grant`; its tokens that were issued
        before now are refused for a day. channel: a name or a pattern. Raises ValueError if none is given, and
        LogUnavailable.
        """
        if not (subject or channel or request_id):
            raise ValueError("say whose streams: subject, channel or request_id")
        return format_id(revoke(self, subject, channel, request_id))

    # ── for an app's own streams ────────────────────────────────────────────────────────────────────────────

    def response(self, iterable: Iterable[Item]) -> flask.Response:
        """Stream a view's own iterable of strings, :class:`sse.Message` or mappings as events.

        Sends heartbeats while the iterable is silent, and closes it when the client leaves. At its end it sends an
        event ``stream-end``, at which a client must close its EventSource: that comes back otherwise, and starts the
        view again. If the iterable raises, an ``error`` event comes before, and the traceback is logged. Call it in a
        view; the request stays available to the iterable. Nothing is stored; for what must outlive its reader, see
        :meth:`run`. A server that cannot hold streams answers 503 instead.
        """
        environ = flask.request.environ
        refuse_or_warn(environ)
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

        The hub then owns the socket. Raises RuntimeError if this worker does not take streams over, LogUnavailable
        after :meth:`stop`: what watches an app must not start it again.
        """
        hub = self._unless_stopped()
        if hub.sockets is None:
            raise RuntimeError("this worker does not take sockets over")
        stream = self._own_stream(hub, channel, pull=False)
        hub.sockets.adopt(stream, sock.detach())

    def open(self, channel: str = CANARY_CHANNEL) -> Iterator[bytes]:
        """Open the same stream as a generator of the bytes that it is sent.

        Raises LogUnavailable after :meth:`stop`.
        """
        stream = self._own_stream(self._unless_stopped(), channel, pull=True)
        assert isinstance(stream, PullStream)
        return stream.chunks()

    def _unless_stopped(self) -> Hub:
        if self.stopped:
            raise LogUnavailable("this app's SSE was stopped")
        return self.hub

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


def _checked_key(key: str | None) -> str | None:
    if key is not None and not KEY_PATTERN.fullmatch(key):
        raise InvalidEvent("key", "must be 1 to 255 printable ASCII characters without spaces")
    return key
