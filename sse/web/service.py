"""The part of the extension that needs no Flask: settings, keys, the worker's log and hub, and publishing."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from ..auth.address import address_bucket
from ..auth.authenticator import Authenticator
from ..auth.hook import May
from ..auth.origin import all_loopback
from ..auth.rate import PublishRate
from ..auth.revoked import NOTE_KIND, Revoked
from ..events.digest import digest_of, scoped
from ..events.model import Event
from ..events.trace import sampled
from ..log import Log, LogUnavailable, check_url, open_log
from ..observe import access as accesslog
from ..observe.console_stats import Reporter
from ..runs.manager import STOP, Runs
from ..runtime.cooperation import offload, share_logging
from ..runtime.single_flight import SingleFlight
from ..settings import Settings
from ..settings.watch import Watch
from ..streams.control import REVOKE
from ..streams.hub import Hub
from ..streams.stats import Stats
from ..version import VERSION
from .servers import forks_unseen, refuse_company

if TYPE_CHECKING:
    from ..observe.otel import Spans

logger = logging.getLogger("headwater")

# Seconds between two warnings that publishes are being refused.
WARN_INTERVAL = 5.0


class Service:
    """Publishes and streams in one process. Opens the log and the hub at their first use, after the server's fork."""

    version = VERSION
    settings: Settings
    authenticator: Authenticator

    def __init__(self) -> None:
        self.stats = Stats()
        #: the subjects whose earlier tokens are refused
        self.revoked = Revoked(_revocations_of(weakref.ref(self)))
        # The app's own decision about who may do what, before keys and tokens (`SSE.authorize`).
        self.may: May | None = None
        # None unless SSE_OTEL is on.
        self.spans: Spans | None = None
        self.connection_counts: Callable[[], dict[str, int]] | None = None
        self._report_more: Callable[[], dict[str, Any]] | None = None
        self._listening: Sequence[Any] | None = None
        self._lock = threading.Lock()
        self._log: Log | None = None
        self._hub: Hub | None = None
        self._runs: Runs | None = None
        self._warned = float("-inf")  # monotonic seconds
        self._watch: Watch | None = None
        self._inherited: list[Any] = []
        self._opened_in = 0  # the process that opened the log
        self.stopped = False  # ``stop`` was called, and the log has not been opened since

    def configure(self, settings: Settings) -> None:
        """Take the settings, and follow their changes. Raises SettingsError."""
        self.settings = settings
        self.shared_log = check_url(settings.sse_log).shared  # several processes can use it
        self.authenticator = Authenticator(settings, loopback_only=self._loopback_only, revoked=self.revoked)
        self.rate = PublishRate(settings.sse_publish_rate)
        settings.on_change(self._prepare)
        self._watch = self._new_watch()

    def _new_watch(self) -> Watch:
        stats = self.stats  # not self, which the thread would keep alive

        def refused(refused: bool) -> None:
            stats.settings_refused = int(refused)

        return Watch(self.settings, refused)

    def listen(self, names: Sequence[Any]) -> None:
        """Set the addresses that the server listens on (``getsockname()`` of each), without health's."""
        self._listening = names

    def report_more(self, more: Callable[[], dict[str, Any]]) -> None:
        """Add members to each event on the channel ``_stats``. Call it before the hub starts."""
        self._report_more = more

    def _prepare(self, new: Settings) -> Callable[[], None]:
        """Build what new settings need, and return the change, which cannot fail (:mod:`sse.settings.live`).

        Raises SettingsError.
        """
        authenticator = Authenticator(
            new, loopback_only=self._loopback_only, revoked=self.revoked, before=self.authenticator
        )
        same_rate = new.sse_publish_rate == self.settings.sse_publish_rate
        rate = self.rate if same_rate else PublishRate(new.sse_publish_rate)

        def change() -> None:
            before = self.authenticator.startup_line()
            self.authenticator, self.rate = authenticator, rate
            if (line := authenticator.startup_line()) != before:
                logger.info("%s", line)

        return change

    def _loopback_only(self) -> bool:
        return self._listening is not None and all_loopback(self._listening)

    # ── the worker's log and hub ──────────────────────────────────────────────────────────────────────────

    @property
    def log(self) -> Log:
        """The log, opened at its first use. Raises LogRefused, LogUnavailable."""
        if (log := self._log) is None or self._is_parents():
            with self._lock:
                if self._is_parents():
                    self._leave_to_parent()
                if (log := self._log) is None:
                    settings = self.settings
                    refuse_company(settings.sse_log, now=True)
                    log = self._log = open_log(
                        settings.sse_log,
                        retain_events=settings.sse_retain_events,
                        retain_seconds=settings.sse_retain_seconds,
                        options=vars(settings),
                    )
                    self.stopped, self._opened_in = False, os.getpid()
        return log

    def use_log(self, log: Log) -> None:
        """Use this log in place of the configured one, until :meth:`stop`. For tests."""
        with self._lock:
            self._log, self.stopped, self._opened_in = log, False, os.getpid()

    def wake_streams(self) -> None:
        """Let generator streams look at once whether their clients have left. For tests."""
        hub = self._hub
        if hub is not None:
            with hub.lock:
                for stream in hub.pulling:
                    stream.wake()

    @property
    def hub(self) -> Hub:
        """The hub, started at the first use. Raises LogRefused, LogUnavailable."""
        if (hub := self._hub) is None or self._is_parents():
            log = self.log
            with self._lock:
                if (hub := self._hub) is None:
                    share_logging()
                    engine = self.settings.sse_log.partition(":")[0]
                    hub = Hub(
                        log,
                        self.settings,
                        self.stats,
                        on_close=accesslog.stream_ended,
                        site_of=address_bucket,
                        report=Reporter(self.stats, engine, self._report_more),
                        on_delivered=None if self.spans is None else self.spans.delivered,
                        abandoned=self._abandoned(),
                    )
                    service = weakref.ref(self)
                    runs = Runs(log, self.settings, self.stats, abandoned=lambda: service() is None)
                    hub.on_control(STOP, runs.on_stop)
                    revoked = self.revoked
                    hub.on_control(REVOKE, revoked.hear)
                    hub.on_back(lambda: revoked.take(offload(log.notes, NOTE_KIND)))
                    hub.start()
                    runs.start()
                    self._hub, self._runs = hub, runs
                    if self._watch is not None:
                        self._watch.start()
                    logger.info("%s", self.authenticator.startup_line())
        return hub

    @property
    def runs(self) -> Runs:
        """This worker's runs, and those that it knows of by the log. Raises LogRefused, LogUnavailable."""
        while (runs := self._runs) is None:
            _ = self.hub
        return runs

    @property
    def run_count(self) -> int:
        """How many runs of this worker have not ended."""
        return 0 if self._runs is None else len(self._runs)

    def end_runs(self) -> None:
        """End this worker's runs as lost, because it ends. Returns at once."""
        if self._runs is not None:
            self._runs.drain()

    def start(self, connection_counts: Callable[[], dict[str, int]] | None = None) -> Hub:
        """Start the hub now rather than at the first request. Call it in each worker, after the fork.

        connection_counts: returns the server's connections by state (new, active, idle, stream), if it can count them.

        Raises LogRefused, LogUnavailable.
        """
        if connection_counts is not None:
            self.connection_counts = connection_counts
        return self.hub

    def before_fork(self) -> None:
        """Close a log that the app opened while it was loaded, because it published. Called before the server forks.

        A log in memory stays open, so the child gets a copy with its events.
        """
        if self._log is not None and self._hub is None and self._log.shared:
            self._log.close()
            self._log = None

    def forked(self) -> None:
        """Leave the parent's log and hub to the parent. Called in the child after a fork.

        The child keeps references to them, because SQLite forbids closing a connection that was carried across a fork.
        """
        self._lock = threading.Lock()
        if self._hub is not None:
            self._leave_to_parent()
        if self.stats.published:
            self.stats.published = 0  # the parent published these, not each worker

    def _leave_to_parent(self) -> None:
        self._inherited.append((self._hub, self._log, self._runs))
        self._hub = self._log = self._runs = None
        self._watch = self._new_watch()

    def _is_parents(self) -> bool:
        """Tell whether the log was opened before a fork that nobody told us of (uWSGI's)."""
        return forks_unseen() and self._log is not None and self._log.shared and self._opened_in != os.getpid()

    def stop(self) -> None:
        """End the runs, streams and threads, and close the log. A later use opens it again."""
        hub, log, runs = self._hub, self._log, self._runs
        if self._watch is not None:
            self._watch.stop()
        if runs is not None:
            runs.close()
        if hub is not None:
            hub.stop()
        if log is not None:
            log.close()
        if self.spans is not None:
            self.spans.stop()
        with self._lock:
            self.stopped = True
            self._hub = self._log = self._runs = None
            self._watch = self._new_watch()

    def _abandoned(self) -> Callable[[], bool]:
        """Return a function that tells whether this object is gone without a ``stop``, and stops the watch then."""
        service, watch = weakref.ref(self), self._watch

        def abandoned() -> bool:
            if service() is not None:
                return False
            if watch is not None:
                watch.stop()
            return True

        return abandoned

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────

    def trace(self, traceparent: str | None) -> str | None:
        """Return the traceparent to store with a publish's events: normalised if sampled, else None."""
        if traceparent is None and self.spans is not None:
            traceparent = self.spans.current()
        wanted = self.spans is not None or self.settings.sse_trace_lines
        return sampled(traceparent) if traceparent is not None and wanted else None

    def append(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        trace: str | None = None,
        close: Collection[str] = (),
    ) -> list[int]:
        """Append events in order, all or none; return their positions, and then those of what is closed, by name.

        key: an idempotency key, unique among the same channels; a repeated call with it stores the events once.
        trace: what :meth:`trace` returned. close: the channels that end with these events. Raises IdempotencyConflict,
        ChannelClosed, and LogUnavailable, whose ``stored`` is "no" if certainly nothing was stored, else "unknown".
        """
        if self.spans is not None and trace is not None and events:
            with self.spans.appending(events, trace) as (carried, positions):
                positions += self._append(events, key, carried, close)
            return positions
        return self._append(events, key, trace, close)

    def _append(
        self, events: Sequence[Event], key: str | None, trace: str | None, close: Collection[str]
    ) -> list[int]:
        digest = b""
        if key is not None:
            digest, key = digest_of(events, close), scoped(key, events, close)
        try:
            positions = self.log.append(events, key=key, digest=digest, trace=trace, close=close)
        except LogUnavailable:
            self.stats.publishes_refused["log"] += 1
            self.stats.append_failed_at = time.monotonic()
            raise
        self.stats.append_failed_at = 0.0
        self.stats.published += len(events)
        return positions

    def warn_of_refusals(self, error: LogUnavailable) -> None:
        """Warn that publishes are being refused, at most every ``WARN_INTERVAL``."""
        now = time.monotonic()
        if now - self._warned >= WARN_INTERVAL:
            self._warned = now
            logger.warning("publishers are refused: %s", error)


def _revocations_of(service: weakref.ref[Service]) -> Callable[[], dict[str, str]]:
    """Return a function that reads the log's notes of revocations.

    It holds the service weakly, because the hub's threads hold the function.
    """
    flights = SingleFlight()

    def read() -> dict[str, str]:
        found = service()
        return {} if found is None else flights.do(NOTE_KIND, lambda: offload(found.log.notes, NOTE_KIND))

    return read
