"""Prometheus metrics of a pod, whichever of its workers is asked.

Two ways to one exposition, by what a figure means:

- *Counters and histograms* count what a worker did. Each worker moves its plain numbers (``sse.stats``) once
a second
  into prometheus_client's multi-process files, so counting itself costs the hot path nothing; a scrape adds
  them up, and what workers counted that have ended stays in (:mod:`health.metrics_files`). So do the gauges
  that only a worker's own process can know; they go when it goes.
- *Ages and lags* are read from the board at the moment of the scrape. A worker that is stuck flushes nothing:
in a
  file its canary would look young for ever.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from health.board import BEAT_INTERVAL, BOOTING, DRAINING, RUNNING, Board
from health.metrics_files import tag

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# A scrape that meets the master moving counters begins again, this often and after this long (seconds).
FOLD_TRIES: Final = 20
FOLD_PAUSE: Final = 0.01

# These have no annotations.
_open_file: Callable[[str], Any] = MmapedDict
_go_float: Callable[[float], str] = floatToGoString
_collector: Callable[[None, str], Any] = MultiProcessCollector

Kind = Literal["counter", "gauge", "histogram"]


class Row(NamedTuple):
    """One metric. ``attribute``: what it is called in ``sse.stats``: a number, a mapping label → number, or
    an object with ``bounds``, ``counts`` (per bucket, one more than bounds) and ``total``, as
    ``sse.stats.Histogram``."""

    name: str
    kind: Kind
    attribute: str
    help: str
    label: str = ""


ROWS: Final = (
    Row("sse_streams_opened_total", "counter", "opened", "Streams that were opened."),
    Row("sse_streams_closed_total", "counter", "closed", "Streams that ended, by reason.", "reason"),
    Row("sse_streams_refused_total", "counter", "refused", "Streams refused with 200 and retry.", "reason"),
    Row("sse_events_published_total", "counter", "published", "Events that the log acknowledged."),
    Row("sse_events_delivered_total", "counter", "delivered", "Events handed to streams' sockets."),
    Row("sse_bytes_sent_total", "counter", "bytes_sent", "Bytes of streams that the kernel took."),
    Row("sse_resets_total", "counter", "resets", "stream-reset events, by reason.", "reason"),
    Row("sse_replayed_events_total", "counter", "replayed", "Events sent again to clients that resumed."),
    Row("sse_delivery_seconds", "histogram", "delivery", "From append to written, by event and stream."),
    Row("sse_fanout_pass_seconds", "histogram", "passes", "One pass of the fan-out over a group's streams."),
    Row("sse_connections_closed_total", "counter", "connections_closed", "Connections closed.", "reason"),
    Row("sse_connections", "gauge", "connections", "Open connections: new, active, idle, stream.", "state"),
    Row("sse_streams", "gauge", "streams", "Open streams, by state.", "state"),
)

# From the board, one sample a worker; the label is its slot, of which there are few, and not its process id.
BOARD_ROWS: Final = {
    "sse_log_tail_age_seconds": "Since the log last answered this worker's tailer.",
    "health_loop_lag_seconds": "Longest event-loop lag of the last ten seconds, the present one included.",
    "health_canary_age_seconds": "Since an event came all the way out of this worker, or since it began.",
    "health_workers": "Workers of the present generation, by state.",
    "health_workers_expected": "Workers that gunicorn is told to keep.",
}


class HistogramState(Protocol):
    """What a histogram's row reads."""

    @property
    def bounds(self) -> Sequence[float]: ...
    @property
    def counts(self) -> Sequence[int]: ...
    @property
    def total(self) -> float: ...


class Exporter:
    """Moves one worker's numbers into its files. Made after the fork; ``flush`` may be called from any
    thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tag = tag(os.getpid())
        self._files: dict[str, Any] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        self._labels: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def flush(self, values: Mapping[str, object]) -> None:
        """Write the present values; nothing once it is closed.

        :param values: by :attr:`Row.attribute`; a row without a value is left out. Values are absolute.
        """
        with self._lock:
            for row in () if self._closed else ROWS:
                if (value := values.get(row.attribute)) is not None:
                    self._write(row, value)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for file in self._files.values():
                file.close()
            self._files.clear()

    def _write(self, row: Row, value: object) -> None:
        family = row.name.removesuffix("_total") if row.kind == "counter" else row.name
        if row.kind == "histogram":
            state: HistogramState = value  # type: ignore[assignment]
            bounds = (*state.bounds, float("inf"))
            for bound, count in zip(bounds, state.counts, strict=True):
                self._put(row, family, f"{family}_bucket", _go_float(bound), count)
            self._put(row, family, f"{family}_sum", "", state.total)
        elif isinstance(value, Mapping):
            seen = self._labels.setdefault(row.name, set())
            seen.update(value)
            for label in seen:  # a state that nothing is in any more is 0, not what it was
                self._put(row, family, row.name, label, value.get(label, 0))
        elif isinstance(value, (int, float)):
            self._put(row, family, row.name, "", value)

    def _put(self, row: Row, family: str, name: str, label: str, value: float) -> None:
        key = self._keys.get((row.name, name, label))
        if key is None:
            label_name = "le" if name.endswith("_bucket") else row.label
            names, labels = ([label_name], [label]) if label_name and label else ([], [])
            key = self._keys[row.name, name, label] = mmap_key(family, name, names, labels, row.help)
        kind = f"{row.kind}_livesum" if row.kind == "gauge" else row.kind
        file = self._files.get(kind)
        if file is None:
            path = self._directory / f"{kind}_{self._tag}.db"
            file = self._files[kind] = _open_file(str(path))
        file.write_value(key, float(value), 0.0)


class BoardCollector(Collector):
    """The figures of the board at the moment of the scrape."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        now = time.monotonic()
        generation = self._board.generation
        workers = [worker for worker in self._board.records() if worker.generation >= generation]
        alive = [worker for worker in workers if worker.state != BOOTING]
        tail, lag, canary = (
            GaugeMetricFamily(name, BOARD_ROWS[name], labels=["worker"])
            for name in ("sse_log_tail_age_seconds", "health_loop_lag_seconds", "health_canary_age_seconds")
        )
        for worker in alive:
            slot = [str(worker.slot)]
            silent = now - worker.beat
            tail.add_metric(slot, worker.tail_age + silent)
            # A worker that does not beat has a loop that does not turn.
            lag.add_metric(slot, max(worker.lag, silent - BEAT_INTERVAL))
            canary.add_metric(slot, now - (worker.canary or worker.since))
        states = GaugeMetricFamily("health_workers", BOARD_ROWS["health_workers"], labels=["state"])
        for state in (BOOTING, RUNNING, DRAINING):
            states.add_metric([state], sum(worker.state == state for worker in workers))
        name = "health_workers_expected"
        expected = GaugeMetricFamily(name, BOARD_ROWS[name], self._board.expected)
        return iter((tail, lag, canary, states, expected))


class _Files(Collector):
    """All processes' files, read anew when the master moved counters or a file went meanwhile."""

    def __init__(self, directory: Path, board: Board) -> None:
        self._directory = directory
        self._board = board

    def collect(self) -> Iterable[Metric]:
        collector = _collector(None, str(self._directory))
        for attempt in range(FOLD_TRIES):
            before = self._board.folds
            if before % 2 == 0 or attempt == FOLD_TRIES - 1:
                try:
                    metrics: Iterable[Metric] = collector.collect()
                except (OSError, RuntimeError, ValueError, struct.error):
                    metrics = ()  # a file went away, or is being made at this moment
                else:
                    if self._board.folds == before:
                        return metrics
            time.sleep(FOLD_PAUSE)
        return metrics


def exposition(directory: Path, board: Board) -> bytes:
    """All of the pod's metrics in Prometheus' text format (:data:`CONTENT_TYPE`)."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    registry.register(_Files(directory, board))
    return generate_latest(registry)
