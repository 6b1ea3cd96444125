"""The Flask extension: ``sse = SSE(app)``.

It owns the worker's log and hub and opens both when they are first needed, after the server has forked.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import flask

from . import registry
from .auth import Authenticator, address_bucket, client_address, parse_networks, redact, sse_commands
from .auth.origin import all_loopback
from .auth.rate import PublishRate
from .events.model import Event
from .events.trace import sampled
from .log import Log, LogUnavailable, Usage, open_log
from .observe import access as accesslog
from .observe.console_stats import Reporter
from .runtime.cooperation import offload, share_logging
from .settings import Settings
from .settings.watch import Watch
from .streams.group import Subscription
from .streams.hub import CANARY_CHANNEL, Hub, Status
from .streams.pull import PullStream
from .streams.stats import Stats
from .streams.stream import OWN_CLIENT, Stream
from .web import publishing as publish
from .web.fast_path import Lane
from .web.routes import blueprint
from .web.view_streams import STREAM_HEADERS, Body, Item

if TYPE_CHECKING:
    from .observe.otel import Spans

logger = logging.getLogger("headwater")

# A log that cannot be written is said once in so many seconds, however many publishers are refused meanwhile.
COMPLAIN_INTERVAL = 5.0


class SSE:
    """Server-Sent Events for a Flask app: the routes under ``/events``, and :meth:`publish` and :meth:`response`
    for the app's own views.

    settings: by default read from ``app.config`` (the names of docs/settings.md), else their defaults.
    Raises SettingsError for a setting that cannot be.
    """

    app: flask.Flask
    settings: Settings
    authenticator: Authenticator

    def __init__(self, app: flask.Flask | None = None, settings: Settings | None = None) -> None:
        self.stats = Stats()
        # The addresses that the server really listens on; None until a server has told (see sse.gunicorn).
        self.listening: Sequence[Any] | None = None
        self._lock = threading.Lock()
        self._log: Log | None = None
        self._hub: Hub | None = None
        # Further members of the report on `_stats`; health gives what only it knows.
        self.report_more: Callable[[], dict[str, Any]] | None = None
        # How many connections the server has, by state (new, active, idle, stream), where it is one that can tell.
        self.connection_counts: Callable[[], dict[str, int]] | None = None
        # OpenTelemetry's spans, where they are on.
        self.spans: Spans | None = None
        self._complained = float("-inf")
        self._last_call = threading.Event()
        self._watch: Watch | None = None
        self._inherited: list[Any] = []
        if app is not None:
            self.init_app(app, settings)

    def init_app(self, app: flask.Flask, settings: Settings | None = None) -> None:
        """Add the routes to ``app``, and this extension as ``app.extensions["sse"]``."""
        if "sse" in app.extensions:
            raise RuntimeError("this app has an SSE extension already")
        self.settings = settings or Settings.from_mapping(app.config)
        self.trusted_networks = parse_networks(tuple(self.settings.sse_trusted_proxies))
        self.authenticator = Authenticator(self.settings, loopback_only=self._loopback_only)
        self.rate = PublishRate(self.settings.sse_publish_rate)
        self.settings.on_change(self._prepare)
        self._watch = Watch(self.settings, self._settings_refused)
        self.app = app
        app.extensions["sse"] = self
        app.register_blueprint(blueprint)
        if self.settings.sse_otel:
            from .observe.otel import Spans  # an optional extra, which takes a second to import

            self.spans = Spans()
            self.spans.install(app, blueprint.name)
        app.wsgi_app = Lane(app, self)  # type: ignore[method-assign]
        app.cli.add_command(sse_commands(lambda: self.settings))
        registry.register(self)

    def _prepare(self, new: Settings) -> Callable[[], None]:
        """For new settings (`sse.settings.live`): keys and counters are made of them."""
        authenticator = Authenticator(new, loopback_only=self._loopback_only, before=self.authenticator)
        same_rate = new.sse_publish_rate == self.settings.sse_publish_rate
        rate = self.rate if same_rate else PublishRate(new.sse_publish_rate)

        def change() -> None:
            before = self.authenticator.startup_line()
            self.authenticator, self.rate = authenticator, rate
            if (line := authenticator.startup_line()) != before:
                logger.info("%s", line)

        return change

    def _settings_refused(self, refused: bool) -> None:
        self.stats.settings_refused = int(refused)

    def _loopback_only(self) -> bool:
        return self.listening is not None and all_loopback(self.listening)

    # ── the worker's log and hub ──────────────────────────────────────────────────────────────────────────

    @property
    def log(self) -> Log:
        """The log; opened at the first use. Raises LogRefused, LogUnavailable."""
        if self._log is None:
            with self._lock:
                if self._log is None:
                    settings = self.settings
                    self._log = open_log(
                        settings.sse_log,
                        retain_events=settings.sse_retain_events,
                        retain_seconds=settings.sse_retain_seconds,
                        prefix=settings.sse_redis_prefix,
                    )
        return self._log

    @property
    def hub(self) -> Hub:
        """The hub; started at the first use. Raises LogRefused, LogUnavailable."""
        if self._hub is None:
            log = self.log
            with self._lock:
                if self._hub is None:
                    share_logging()
                    hub = Hub(
                        log, self.settings, self.stats, on_close=accesslog.stream_ended, site_of=address_bucket
                    )
                    reporter = Reporter(hub, self.settings.sse_log.partition(":")[0])
                    reporter.more = self.report_more
                    hub.report = reporter
                    if self.spans is not None:
                        hub.deliveries.on_delivered = self.spans.delivered
                    hub.start()
                    self._hub = hub
                    if self._watch is not None:
                        self._watch.start()
                    logger.info("%s", self.authenticator.startup_line())
        return self._hub

    def start(self) -> Hub:
        """Open the log and begin to follow it now, rather than with the first request. To be called in each worker,
        after the fork. Raises LogRefused, LogUnavailable."""
        return self.hub

    def before_fork(self) -> None:
        """Close a log that nothing follows yet: the app has published while it was loaded, before the server forks. A
        log in memory goes along, with its events."""
        if self._log is not None and self._hub is None and self._log.shared:
            self._log.close()
            self._log = None

    def forked(self) -> None:
        """In the child: what only works in the process that made it is left to the parent. It must not be closed here,
        so it is kept (SQLite forbids even that, of a connection that was carried across a fork)."""
        self._lock = threading.Lock()
        if self._hub is not None:
            self._inherited.append((self._hub, self._log))
            self._hub = self._log = None
            self._watch = Watch(self.settings, self._settings_refused)
        if self.stats.published:
            self.stats.published = 0  # the parent's, and not each worker's

    def stop(self) -> None:
        """Stop following and close the log."""
        if self._watch is not None:
            self._watch.stop()
        if self._hub is not None:
            self._hub.stop()
        if self._log is not None:
            self._log.close()
        if self.spans is not None:
            self.spans.stop()

    # ── for an app's own views ────────────────────────────────────────────────────────────────────────────

    def publish(
        self,
        channel: str,
        data: str,
        event: str | None = None,
        retry: int | None = None,
        *,
        traceparent: str | None = None,
    ) -> str:
        """Append one event; returns its id once the log holds it.

        retry: the client's reconnection time in milliseconds. traceparent: of the request that this is done for; when
        it is sampled, the event's deliveries are logged. Raises InvalidEvent; LogUnavailable, whose ``stored`` is "no"
        or "unknown" (:meth:`append`).
        """
        (position,) = self.append([Event(channel, data, event, retry)], trace=self.trace(traceparent))
        return f"{position >> 20}-{position & 0xFFFFF}"

    def trace(self, traceparent: str | None) -> str | None:
        """What is to be carried of a publish's ``traceparent``: the same, normalised, if it is sampled."""
        if traceparent is None and self.spans is not None:
            traceparent = self.spans.current()
        wanted = self.spans is not None or self.settings.sse_trace_lines
        return sampled(traceparent) if traceparent is not None and wanted else None

    def append(self, events: Sequence[Event], *, key: str | None = None, trace: str | None = None) -> list[int]:
        """Append events in order, all or none, and return their positions. ``key``: idempotency key, among
        those of the same channels; ``trace``: what :meth:`trace` returned.

        Raises LogUnavailable, IdempotencyConflict. ``LogUnavailable.stored`` is "no" where nothing was stored for
        certain, else "unknown"; a repetition with the same ``key`` is stored once.
        """
        if self.spans is not None and trace is not None:
            with self.spans.appending(events, trace) as (carried, positions):
                positions += self._append(events, key, carried)
            return positions
        return self._append(events, key, trace)

    def _append(self, events: Sequence[Event], key: str | None, trace: str | None) -> list[int]:
        digest = b""
        if key is not None:
            digest, key = publish.digest_of(events), publish.scoped(key, events)
        try:
            positions = self.log.append(events, key=key, digest=digest, trace=trace)
        except LogUnavailable:
            self.stats.publishes_refused["log"] += 1
            self.stats.append_failed_at = time.monotonic()
            raise
        self.stats.append_failed_at = 0.0
        self.stats.published += len(events)
        return positions

    def complain(self, error: LogUnavailable) -> None:
        """Have the operator know that publishers are refused."""
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_INTERVAL:
            self._complained = now
            logger.warning("publishers are refused: %s", error)

    def response(self, iterable: Iterable[Item]) -> flask.Response:
        """Stream a view's own iterable of strings, :class:`sse.Message` or mappings as events, with heartbeats while it
        is silent. The iterable is closed when the client goes; when it raises, the stream ends with an ``error``
        event and the log has the traceback. To be called in a view; the request stays available to the iterable."""
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
            environ["sse.stream"] = True  # it logs itself at its end
            self.stats.opened += 1

        def closed(reason: str, events: int, size: int) -> None:
            self.stats.closed[reason] += 1
            self.stats.delivered += events
            self.stats.bytes_sent += size
            client = client_address(environ, self.trusted_networks)
            accesslog.response_ended(environ, client, target, reason, events, size, time.monotonic() - began)

        body = Body(
            iterable,
            run=in_context,
            heartbeat=settings.sse_heartbeat,
            retry_ms=settings.sse_retry,
            hung_up=environ.get("sse.hung_up"),
            should_end=self._last_call.is_set,
            on_open=opened,
            on_close=closed,
            why_lost=environ.get("sse.why_lost", lambda: "client"),
        )
        return flask.Response(body, headers=STREAM_HEADERS)

    def end_responses(self) -> None:
        """Let every :meth:`response` end at its next turn: the end of a drain."""
        self._last_call.set()

    # ── the one interface that health looks through ───────────────────────────────────────────────────────

    def status(self) -> Status:
        """What this worker's hub is doing, without touching the log."""
        if self._hub is None:
            return Status(False, False, 0.0, 0, {}, False)
        return self._hub.status()

    def log_usage(self) -> Usage | None:
        """What the log takes and has room for; None while it cannot say, or is not open. Waits for it."""
        if self._log is None:
            return None
        try:
            return offload(self._log.usage)
        except LogUnavailable:
            return None  # the tailer has said so

    def attach(self, sock: socket.socket, channel: str = CANARY_CHANNEL) -> None:
        """Hand one end of a socket pair to the hub as a real, close-delimited stream of a channel; the hub owns it from
        then on. Raises RuntimeError where streams are not taken over."""
        hub = self.hub
        if hub.adopt is None:
            raise RuntimeError("this worker does not take sockets over")
        stream = self._own_stream(hub, channel, pull=False)
        hub.adopt(stream, sock.detach())

    def open(self, channel: str = CANARY_CHANNEL) -> Iterator[bytes]:
        """The same through the generator path: what a stream of the channel is sent."""
        stream = self._own_stream(self.hub, channel, pull=True)
        assert isinstance(stream, PullStream)
        return stream.chunks()

    @staticmethod
    def _own_stream(hub: Hub, channel: str, *, pull: bool) -> Stream:
        """A stream of the process itself: outside every limit and lease."""
        group = hub.join(Subscription(frozenset({channel})))
        now = time.monotonic()
        position = group.position(hub.window.position)
        never = float("inf")
        if pull:
            return PullStream(hub, group, position, now=now, ends_at=never, client=OWN_CLIENT)
        return Stream(group, position, now=now, ends_at=never, client=OWN_CLIENT, chunked=False)
