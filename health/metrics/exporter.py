"""Prometheus metrics of a pod, the same from whichever worker answers.

A scrape reads figures from two places:

- *Counters and histograms* from files. Once a second each worker writes its plain numbers (its source's ``stats``) to
  prometheus_client's multi-process files, so counting costs the hot path nothing. A scrape adds them up. The counts of
  workers that have ended are kept (``health.metrics.files``). Gauges that only the worker itself knows are in such
  files, too, and disappear with the worker.
- *Ages and lags* from the board. A stuck worker writes no files, where its canary would look young for ever.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..signs.board import BEAT_INTERVAL, BOOTING, DRAINING, RUNNING, Board
from .files import allocate, read_values, tag
from .processes import ProcessesCollector
from .table import BOARD_ROWS, ROWS, Row

logger = logging.getLogger("headwater.health")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# How often a scrape starts again because the master was moving counters, and after how many seconds.
FOLD_TRIES: Final = 20
FOLD_PAUSE: Final = 0.01

# Initial size of a file, bytes. Our metrics take less than half of it.
FILE_BYTES: Final = 32 * 1024

# Seconds until the exporter tries again, when there was no room for its files.
NO_ROOM_PAUSE: Final = 60.0

# These have no annotations.
_go_float: Callable[[float], str] = floatToGoString
_collector: Callable[[None, str], Any] = MultiProcessCollector


class HistogramState(Protocol):
    """A histogram: ``counts`` per bucket, one more than bounds, and the ``total`` of all values."""

    @property
    def bounds(self) -> Sequence[float]: ...
    @property
    def counts(self) -> Sequence[int]: ...
    @property
    def total(self) -> float: ...


class _Counted(NamedTuple):
    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


def copied(value: object) -> object:
    """Copy a row's value, so that another thread can write it while this one counts on."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "counts"):
        state: Any = value
        return _Counted(state.bounds, tuple(state.counts), state.total)
    return value


class _File(MmapedDict):
    """prometheus_client's file, fully allocated (see ``health.metrics.files.allocate``)."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            allocate(path, FILE_BYTES)
        super().__init__(str(path))  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + 32 > self._capacity:
            # Raises OSError if there is no room; the present map stays as it is.
            os.posix_fallocate(self._f.fileno(), 0, self._capacity * 2)
        super()._init_value(key)  # type: ignore[no-untyped-call]


class Exporter:
    """Writes one worker's numbers to its files. Create it after the fork.

    If there is no room for them (/dev/shm is full), it logs that once, removes its files, and tries again every
    ``NO_ROOM_PAUSE`` seconds. Values are absolute, so nothing is lost meanwhile.

    directory: returns the directory, and creates it if needed; may raise OSError.
    """

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._tag = tag(os.getpid())
        self._files: dict[str, Any] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        self._labels: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._off_until = 0.0

    def flush(self, values: Mapping[str, object]) -> None:
        """Write the present values; do nothing once closed.

        values: absolute values by ``Row.attribute``. Rows without a value are left out.
        """
        with self._lock:
            if self._closed or time.monotonic() < self._off_until:
                return
            try:
                for row in ROWS:
                    self._file(row)  # allocate all files now, so that later values need no more room
                for row in ROWS:
                    if (value := values.get(row.attribute)) is not None:
                        self._write(row, value)
            except OSError as error:
                self._switch_off(error)
                return
            if self._off_until:
                self._off_until = 0.0
                logger.warning("metrics are on again in this worker")

    def _switch_off(self, error: OSError) -> None:
        if not self._off_until:
            logger.warning("metrics are off in this worker until there is room for their files: %s", error)
        self._off_until = time.monotonic() + NO_ROOM_PAUSE
        names = [file._fname for file in self._files.values()]
        self._close_files()
        for name in names:
            Path(name).unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._close_files()

    def _close_files(self) -> None:
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
            # Export every series from the start, as 0, so that rate() sees its first increase.
            seen = self._labels.setdefault(row.name, set(row.known))
            seen.update(value)
            for label in seen:  # also those that have no value now, so that they return to 0
                self._put(row, family, row.name, label, value.get(label, 0))
        elif isinstance(value, (int, float)):
            self._put(row, family, row.name, "", value)

    def _put(self, row: Row, family: str, name: str, label: str, value: float) -> None:
        key = self._keys.get((row.name, name, label))
        if key is None:
            label_name = "le" if name.endswith("_bucket") else row.label
            names, labels = ([label_name], [label]) if label_name and label else ([], [])
            key = self._keys[row.name, name, label] = mmap_key(family, name, names, labels, row.help)
        self._file(row).write_value(key, float(value), 0.0)

    def _file(self, row: Row) -> Any:
        kind = f"{row.kind}_live{row.merge}" if row.kind == "gauge" else row.kind
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = _File(self._directory() / f"{kind}_{self._tag}.db")
        return file


class BoardCollector(Collector):
    """Collects the board's figures at the moment of the scrape."""

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
            # If a worker does not beat, its loop is stuck.
            lag.add_metric(slot, max(worker.lag, silent - BEAT_INTERVAL))
            canary.add_metric(slot, now - (worker.canary or worker.since))
        states = GaugeMetricFamily("health_workers", BOARD_ROWS["health_workers"], labels=["state"])
        for state in (BOOTING, RUNNING, DRAINING):
            states.add_metric([state], sum(worker.state == state for worker in workers))
        name = "health_workers_expected"
        expected = GaugeMetricFamily(name, BOARD_ROWS[name], self._board.expected)
        return iter((tail, lag, canary, states, expected))


class _Files(Collector):
    """Collects all processes' files. Starts again if the master moved counters or a file disappeared meanwhile."""

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
                    metrics = ()  # a file has just disappeared, or is not complete yet
                else:
                    if self._board.folds == before:
                        return metrics
            time.sleep(FOLD_PAUSE)
        return metrics


def pod_counts(directory: Path) -> dict[str, float]:
    """Return the sums of all workers' counters and histograms, as last flushed.

    The keys are ``name`` (summed over labels), and for each bucket of a histogram ``name_bucket:le`` (not cumulated).
    Much cheaper than ``exposition``, for callers that ask every second.
    """
    counts: dict[str, float] = {}
    for kind in ("counter", "histogram"):
        for path in directory.glob(f"{kind}_sse-*.db"):
            try:
                values = read_values(path)
            except (OSError, ValueError):
                continue  # the file has just disappeared, or is not complete yet
            for key, (value, _) in values.items():
                _, name, labels, _ = json.loads(key)
                if kind == "histogram" and "le" in labels:
                    name = f"{name}:{labels['le']}"
                counts[name] = counts.get(name, 0.0) + value
    return counts


def quantile(share: float, buckets: Mapping[float, float], before: Mapping[float, float]) -> float | None:
    """Return the upper bound of the bucket that holds a quantile of the observations since ``before``.

    For the last bucket, which has none, that is twice the highest bound. None if there were no observations.

    share: the quantile, 0 to 1; buckets, before: bound → count, not cumulated.
    """
    new = {bound: count - before.get(bound, 0.0) for bound, count in sorted(buckets.items())}
    wanted = sum(new.values()) * share
    if wanted <= 0:
        return None
    reached = 0.0
    last = 0.0
    for bound, count in new.items():
        reached += count
        if reached >= wanted:
            return bound if bound != float("inf") else last * 2
        last = bound
    return None


def exposition(directory: Path | None, board: Board, version: str = "") -> bytes:
    """Return the pod's metrics in Prometheus' text format (``CONTENT_TYPE``).

    directory: of the workers' files; None: leave their metrics out.
    version: of the service.
    """
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    if directory is not None:
        registry.register(_Files(directory, board))
    registry.register(ProcessesCollector(board, version))
    return generate_latest(registry)
