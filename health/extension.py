"""What the extension is for one app: its routes, checks and background work."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import flask

from .checks.table import Question, Report, ask
from .checks.user import CheckFunction, UserChecks
from .config import Config
from .listeners import SAID, Name, accepted_by, local_name, of_health
from .metrics import exporter as metrics
from .metrics import files as metrics_files
from .metrics.table import ROWS
from .signs import board
from .signs.board import BEAT_MAX_AGE
from .signs.pulse import Pulse
from .source import LogUsage, Source
from .threads import RealThread
from .views import make_blueprint

logger = logging.getLogger("headwater.health")

# Seconds that a caller waits for the counters to be written to their files.
FLUSH_PATIENCE: Final = 2.0

FLUSH_INTERVAL: Final = 1.0  # seconds between two writes of the counters
LOG_INTERVAL: Final = 10.0  # seconds between two measurements of the log's size

# The pod's counters that the console shows: name in the console → name of the metric.
REPORTED: Final = {
    "opened": "streams_opened",
    "published": "events_published",
    "delivered": "events_delivered",
    "bytes": "bytes_sent",
}

T = TypeVar("T")


def _weakly(method: Callable[[], T]) -> Callable[[], T | None]:
    """Make a function that calls a bound method without keeping its object alive; None once that is gone."""
    known = weakref.WeakMethod(method)

    def call() -> T | None:
        alive = known()
        return None if alive is None else alive()

    return call


class AppHealth:
    """One app's health, ``app.extensions["health"]``. :class:`health.apps.Health` makes it.

    It watches ``app.extensions["sse"]`` (a ``health.source.Source``) if the app has it.
    """

    def __init__(self, app: flask.Flask, config: Config) -> None:
        self.app = app
        self._config = config
        self._checks = UserChecks()
        self._pulse: Pulse | None = None
        self._exporter: metrics.Exporter | None = None
        self._real_thread: RealThread | None = None
        self._directory = metrics_files.Directory()
        self._lock = threading.Lock()
        self._log_usage: dict[str, float] = {}
        # The endpoint of the app's own view for the path of our metrics; empty if it has none.
        self.rival = ""
        self._stalled = False  # the last flush timed out
        self._delivery: Mapping[float, float] = {}
        self._listening: tuple[Name, ...] = ()
        app.extensions["health"] = self
        known = board.process.extensions
        known[:] = [other for other in known if other() is not None] + [weakref.ref(self)]
        app.register_blueprint(make_blueprint(self))

    def add_check(
        self,
        name: str,
        function: CheckFunction,
        live: bool = False,
        ready: bool = True,
        interval: float = 10.0,
        timeout: float = 2.0,
    ) -> None:
        """Add a check of this app alone; see :meth:`health.apps.Health.add_check`."""
        self._checks.add(name, function, live=live, ready=ready, interval=interval, timeout=timeout)

    # ── start and stop ────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Pulse:
        """Start the background work of this process. Idempotent.

        Call it in each worker after the fork and gevent's patching (gunicorn's ``post_worker_init``), or the first
        request does.
        """
        pulse = self._pulse
        if pulse is not None and pulse.pid == os.getpid():  # a forked child has the object, but not its threads
            return pulse
        with self._lock:
            if self._pulse is not None and self._pulse.pid == os.getpid():
                return self._pulse
            self._exporter = metrics.Exporter(self._directory.path)
            self._real_thread = RealThread()
            pulse = self._pulse = Pulse(
                _weakly(self._source),
                self._config.limits,
                weakref.proxy(self._checks),  # an app's check may refer to the app
                {
                    "metrics": (FLUSH_INTERVAL, _weakly(self._flush)),  # runs at the start, too: allocates the files
                    "log": (LOG_INTERVAL, _weakly(self._measure_log)),
                },
                self._abandoned(self._exporter),
            )
        self._look_for_rivals()
        # Outside the lock, because starting a greenlet switches, and the lock may be older than gevent's patches.
        pulse.start()
        return pulse

    def stop(self) -> None:
        """Write the counters once more and stop the background work. A later request begins it again."""
        self._flush()
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None
        if self._exporter is not None and self._real_thread is not None:
            with suppress(TimeoutError):
                self._real_thread.run(self._exporter.close, FLUSH_PATIENCE)
        self._directory.remove()

    def _abandoned(self, exporter: metrics.Exporter) -> Callable[[], bool]:
        """Return a function that tells whether the app is gone without a ``stop``, and then cleans up."""
        app, directory = weakref.ref(self), self._directory

        def abandoned() -> bool:
            if app() is not None:
                return False
            exporter.close()
            directory.remove()
            return True

        return abandoned

    @property
    def metrics_path(self) -> str:
        """HEALTH_METRICS_PATH."""
        return self._config.metrics_path

    def _look_for_rivals(self) -> None:
        """Warn if the app also answers the path of our metrics, because one then hides the other.

        With a health listener both are reachable, ours there and the app's on the main one.
        """
        app, path = self.app, self.metrics_path
        self.rival = next((rule.endpoint for rule in app.url_map.iter_rules() if rule.rule == path), "")
        names = self._listening or board.listening()
        mounted = path in getattr(app.wsgi_app, "mounts", ())
        if mounted or (self.rival and (self._health_port is None or len(names) == 1)):
            other = "a mounted WSGI application" if mounted else f"the app's endpoint {self.rival!r}"
            logger.warning(
                "GET %s is answered by %s, which hides health's metrics. Set HEALTH_METRICS_PATH in app.config to "
                "another path, or give health a listener of its own (HEALTH_PORT)",
                path,
                other,
            )

    def _source(self) -> Source | None:
        source: Source | None = self.app.extensions.get("sse")
        return source

    # ── answers ───────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, question: Question) -> Report:
        """Answer one question from the checks that count for it. Reads only memory."""
        pulse = self.start()
        if question == "started" and pulse.seat.board.started:
            return Report("started", ())
        report = ask(question, pulse.table(), pulse.snapshot())
        if question == "started" and report.ok:
            pulse.seat.board.mark_started()
        return report

    def report(self) -> dict[str, object]:
        """Return the console's figures: this worker's canary age and loop lag (s), all workers, the pod's counts."""
        seen = self.start().snapshot()
        workers = [
            {
                "pid": worker.pid,
                "state": "silent" if seen.now - worker.beat > BEAT_MAX_AGE else worker.state,
                "streams": worker.streams,
                "canary_age": round(seen.now - (worker.canary or worker.since), 3),
                "loop_lag": round(worker.lag, 4),
            }
            for worker in seen.workers
        ]
        own_canary_age = round(seen.now - seen.canary, 3) if seen.canary else None
        report = {"canary_age": own_canary_age, "loop_lag": round(seen.lag, 4), "workers": workers}
        return report | self._pod_counts()

    def _pod_counts(self) -> dict[str, object]:
        """Return the pod's counters, and the 99th percentile of delivery times since the last report.

        The percentile is its bucket's upper bound in seconds, or None if nothing was delivered.
        """
        self._flush()
        counts = metrics.pod_counts(self._directory.path())
        report: dict[str, object] = {
            name: int(counts[f"sse_{metric}_total"])
            for name, metric in REPORTED.items()
            if f"sse_{metric}_total" in counts
        }
        prefix = "sse_delivery_seconds_bucket:"
        buckets = {float(name.removeprefix(prefix)): n for name, n in counts.items() if name.startswith(prefix)}
        before, self._delivery = self._delivery, buckets
        if buckets:
            report["delivery_p99"] = metrics.quantile(0.99, buckets, before)
        return report

    def listen(self, names: Sequence[Name]) -> frozenset[Name]:
        """Set the addresses that the server listens on, in the order of its ``bind``; return health's.

        The server calls this in each worker before the first request.
        """
        self._listening = tuple(names)
        return of_health(self._listening, self._health_port)

    @property
    def _health_port(self) -> int | None:
        """HEALTH_PORT: the app's own, else the server's; None: there is no health listener."""
        return board.process.port if self._config.health_port is None else self._config.health_port

    def on_health_port(self, environ: Mapping[str, Any]) -> bool | None:
        """Tell whether this request arrived on the health listener; None if there is none."""
        port = self._health_port
        if port is None:
            return None
        said: bool | None = environ.get(SAID)
        if said is not None:
            return said
        names = self._listening or board.listening()
        if len(names) == 1:
            return None
        local = local_name(environ)
        if names:
            return accepted_by(local, of_health(names, port))
        # The listeners are unknown, so compare only the port.
        return isinstance(local, tuple) and local[1] == port if port else None

    def metrics(self) -> tuple[str, bytes]:
        """Return the content type and body of ``/metrics``, for the whole pod."""
        pulse = self.start()
        self._flush()
        try:
            directory = self._directory.path()
        except OSError:
            directory = None  # the exporter has logged the error
        version = getattr(self._source(), "version", "")
        return metrics.CONTENT_TYPE, metrics.exposition(directory, pulse.seat.board, version)

    def _flush(self) -> None:
        """Write the counters to their files, in a real thread because the files may be on a disk."""
        exporter, real_thread, values = self._exporter, self._real_thread, self._values()
        if exporter is None or real_thread is None or values is None:
            return
        try:
            real_thread.run(lambda: exporter.flush(values), FLUSH_PATIENCE)
        except TimeoutError:
            if not self._stalled:
                logger.warning("writing the metrics' files takes over %g s, so metrics are out of date", FLUSH_PATIENCE)
            self._stalled = True
        else:
            self._stalled = False

    def _values(self) -> dict[str, object] | None:
        """Return a copy of this worker's counters."""
        source = self._source()
        stats = getattr(source, "stats", None)
        if source is None or stats is None:
            return None
        values = {row.attribute: metrics.copied(getattr(stats, row.attribute, None)) for row in ROWS}
        values["streams"] = source.status().streams
        # Missing or None unless the server can count its connections.
        connections: Callable[[], Mapping[str, int]] | None = getattr(source, "connection_counts", None)
        if connections is not None:
            values["connections"] = connections()
        return values | self._log_usage

    def _measure_log(self) -> None:
        """Measure the log's size. If the log cannot tell now, the last figures stay."""
        ask: Callable[[], LogUsage | None] | None = getattr(self._source(), "log_usage", None)
        usage = None if ask is None else ask()
        if usage is not None:
            oldest = usage.oldest_at or 0.0
            found = {"log_bytes": usage.bytes, "log_free": usage.free, "log_oldest": oldest}
            self._log_usage = {name: value for name, value in found.items() if value is not None}
