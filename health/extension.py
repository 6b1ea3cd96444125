"""The Flask extension: ``health = Health(app)``."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import flask

from .checks.table import Question, Report, ask
from .checks.user import CheckFunction, UserChecks
from .config import Config, Settings
from .listeners import Name, accepted_by, local_name, of_health
from .metrics import exporter as metrics
from .metrics import files as metrics_files
from .metrics.table import ROWS
from .signs import board
from .signs.board import BEAT_MAX_AGE
from .signs.pulse import Vitals
from .source import LogUsage, Source
from .threads import Aside
from .views import make_blueprint

logger = logging.getLogger("headwater.health")

# How long the counters may take to be moved to their files before whoever asked goes on without, seconds.
FLUSH_PATIENCE: Final = 2.0

FLUSH_INTERVAL: Final = 1.0  # seconds between two moves of the counters
LOG_INTERVAL: Final = 10.0  # seconds between two looks at what the log takes

# What the console is told of the pod's counters: its name there → the metric's.
REPORTED: Final = {
    "opened": "streams_opened",
    "published": "events_published",
    "delivered": "events_delivered",
    "bytes": "bytes_sent",
}


class Health:
    """Health routes for one Flask app: ``/healthz``, ``/livez``, ``/readyz``, ``/startupz``, ``/metrics``.

    It watches ``app.extensions["sse"]`` when there is one (:class:`health.source.Source`), and works without.

    :param settings: where its settings are read from; without, ``app.config`` (see
    :class:`health.config.Config`).
    """

    def __init__(self, app: flask.Flask | None = None, settings: Settings | None = None) -> None:
        self._app: flask.Flask | None = None
        self._config = Config()
        self._checks = UserChecks()
        self._vitals: Vitals | None = None
        self._exporter: metrics.Exporter | None = None
        self._aside: Aside | None = None
        self._directory: Path | None = None
        self._lock = threading.Lock()
        self._chores = {
            "metrics": (FLUSH_INTERVAL, self._flush),  # at once, too: then the files take their room
            "log": (LOG_INTERVAL, self._measure_log),
        }
        self._log_usage: dict[str, float] = {}
        # The endpoint of a view of the app's own for the same path as our metrics; empty: there is none.
        self.rival = ""
        self._stalled = False  # the last flush was given up
        self._delivery: Mapping[float, float] = {}
        self._listening: tuple[Name, ...] = ()
        if app is not None:
            self.init_app(app, settings)

    def init_app(self, app: flask.Flask, settings: Settings | None = None) -> None:
        """Add the routes to ``app``, and this extension as ``app.extensions["health"]``.

        :raises ValueError: for a setting in ``app.config`` that cannot be.
        """
        if self._app is not None or "health" in app.extensions:
            raise RuntimeError("this app, or this extension, has been initialised already")
        self._config = (
            Config.from_mapping(app.config) if settings is None else Config.from_settings(settings)
        )
        self._app = app
        app.extensions["health"] = self
        board.process.extensions.append(weakref.ref(self))
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
        """Add a check of the app's own, such as whether its database answers.

        It runs in the background, every ``interval`` seconds (at least 0.5), in a real thread, one run at a
        time; probes only read what came of it last. A run that takes longer than ``timeout`` seconds counts
        as failed until it returns.

        :param name: as ``?verbose`` shows it: printable ASCII without spaces.
        :param function: passes by returning None or True; fails by returning False or a text with the reason,
        which
            whoever asks can read, or by raising (then the log has the details and the answer only the type).
        :param live: count it for ``/healthz``: a failure restarts the container. Never for a dependency.
        :param ready: count it for ``/readyz``. Until its first run has ended the pod is not ready.
        :raises ValueError: for a name that is taken, or a value that cannot be.
        """
        self._checks.add(name, function, live=live, ready=ready, interval=interval, timeout=timeout)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Vitals:
        """Start what runs in the background in this process. Idempotent. A worker should call it once it has
        forked and gevent has patched it (gunicorn's ``post_worker_init``); else the first probe does."""
        vitals = self._vitals
        if vitals is not None and vitals.pid == os.getpid():  # a fork takes objects along, but no threads
            return vitals
        with self._lock:
            if self._vitals is not None and self._vitals.pid == os.getpid():
                return self._vitals
            self._exporter = metrics.Exporter(self._metrics_directory)
            self._aside = Aside()
            vitals = self._vitals = Vitals(self._source, self._config.limits, self._checks, self._chores)
        self._look_for_rivals()
        # Not under the lock: starting a greenlet switches, and the lock may be older than gevent's patches.
        vitals.start()
        return vitals

    def stop(self) -> None:
        """Stop what runs in the background; what was counted last is kept."""
        self._flush()
        if self._vitals is not None:
            self._vitals.stop()
            self._vitals = None
        if self._exporter is not None and self._aside is not None:
            with suppress(TimeoutError):
                self._aside.run(self._exporter.close, FLUSH_PATIENCE)

    @property
    def metrics_path(self) -> str:
        """Where the metrics are; HEALTH_METRICS_PATH."""
        return self._config.metrics_path

    def _look_for_rivals(self) -> None:
        """Two that answer ``/metrics`` would hide each other silently. With a listener of our own both have their
        place: ours is there, the app's on the main one."""
        app, path = self._app, self.metrics_path
        if app is None:
            return
        self.rival = next((rule.endpoint for rule in app.url_map.iter_rules() if rule.rule == path), "")
        names = self._listening or board.listening()
        mounted = path in getattr(app.wsgi_app, "mounts", ())
        if mounted or (self.rival and (self._config.health_port is None or len(names) == 1)):
            other = "a mounted WSGI application" if mounted else f"the app's endpoint {self.rival!r}"
            logger.warning(
                'GET %s is answered by %s, and not by health: its metrics are hidden. Set HEALTH_METRICS_PATH in '
                "app.config to another path, or give health a listener of its own (HEALTH_PORT)",
                path,
                other,
            )

    def _source(self) -> Source | None:
        source: Source | None = None if self._app is None else self._app.extensions.get("sse")
        return source

    # ── answers ───────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, question: Question) -> Report:
        """Put one question to the checks that count for it. Reads memory only."""
        vitals = self.start()
        if question == "started" and vitals.seat.board.started:
            return Report("started", ())
        report = ask(question, vitals.table(), vitals.snapshot())
        if question == "started" and report.ok:
            vitals.seat.board.mark_started()
        return report

    def report(self) -> dict[str, object]:
        """For the console: the ages of what this worker's probes judge, seconds, and how all workers are."""
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
        """What all workers of the pod have counted, and the delivery time of 99 % since the last report (the upper
        bound of its bucket, seconds; None when nothing was delivered)."""
        self._flush()
        counts = metrics.pod_counts(self._metrics_directory())
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
        """Learn what addresses the server listens on (in the order of its ``bind``); returns those that are health's
        own. A server says so in each worker, before the first request."""
        self._listening = tuple(names)
        return of_health(self._listening, self._config.health_port)

    def on_health_port(self, environ: Mapping[str, Any]) -> bool | None:
        """Did this request come in through the health listener? None when there is no second listener."""
        port = self._config.health_port
        if port is None:
            return None
        names = self._listening or board.listening()
        if len(names) == 1:
            return None
        local = local_name(environ)
        if names:
            return accepted_by(local, of_health(names, port))
        # Nobody has said what there is: the port alone tells.
        return isinstance(local, tuple) and local[1] == port if port else None

    def metrics(self) -> tuple[str, bytes]:
        """Content type and body of ``/metrics``, for the whole pod."""
        vitals = self.start()
        self._flush()
        try:
            directory = self._metrics_directory()
        except OSError:
            directory = None  # the exporter has said so
        return metrics.CONTENT_TYPE, metrics.exposition(directory, vitals.seat.board)

    def _metrics_directory(self) -> Path:
        """The master's directory; without one, this process's own. Raises OSError when none can be made."""
        if (given := metrics_files.pod_directory()) is not None:
            return given
        if self._directory is None:
            self._directory = metrics_files.make_directory()
        return self._directory

    def _flush(self) -> None:
        """Move the counters to the files. They may lie on a disk, so that is done aside."""
        exporter, aside, values = self._exporter, self._aside, self._values()
        if exporter is None or aside is None or values is None:
            return
        try:
            aside.run(lambda: exporter.flush(values), FLUSH_PATIENCE)
        except TimeoutError:
            if not self._stalled:
                logger.warning("the metrics' files take more than %g s to write; metrics are old", FLUSH_PATIENCE)
            self._stalled = True
        else:
            self._stalled = False

    def _values(self) -> dict[str, object] | None:
        """What this worker has counted, copied: counting goes on."""
        source = self._source()
        stats = getattr(source, "stats", None)
        if source is None or stats is None:
            return None
        values = {row.attribute: metrics.copied(getattr(stats, row.attribute, None)) for row in ROWS}
        values["streams"] = source.status().streams
        # Only a server that owns its connections can count them: the attribute is there, or set, where it does.
        connections: Callable[[], Mapping[str, int]] | None = getattr(source, "connection_counts", None)
        if connections is not None:
            values["connections"] = connections()
        return values | self._log_usage

    def _measure_log(self) -> None:
        """Ask what the log takes. A log that cannot say now leaves what was known last."""
        ask: Callable[[], LogUsage | None] | None = getattr(self._source(), "log_usage", None)
        usage = None if ask is None else ask()
        if usage is not None:
            oldest = usage.oldest_at or 0.0
            found = {"log_bytes": usage.bytes, "log_free": usage.free, "log_oldest": oldest}
            self._log_usage = {name: value for name, value in found.items() if value is not None}
