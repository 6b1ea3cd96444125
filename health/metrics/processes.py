"""Metrics of the pod's processes, gunicorn's master included, and of the build.

prometheus_client exports only the process that answers, and none in multi-process mode. Here each process has its own
samples, with the label ``process``: ``master`` or the worker's slot.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..signs import board
from .table import PROCESS_ROWS


@cache
def build(version: str) -> dict[str, str]:
    """Return the versions of the service (as given), of Python, gunicorn and gevent; empty for a package that is not
    installed."""
    labels = {"version": version, "python": platform.python_version()}
    for package in ("gunicorn", "gevent"):
        try:
            labels[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            labels[package] = ""
    return labels


class ProcessesCollector(Collector):
    """Collects samples of the processes on the board, of the master, and of the build.

    version: the service's.
    """

    def __init__(self, shared: board.Board, version: str) -> None:
        self._board = shared
        self._version = version

    def collect(self) -> Iterator[Metric]:
        pids = {str(worker.slot): worker.pid for worker in self._board.records() if worker.pid > 0}
        if board.in_worker():
            pids["master"] = os.getppid()
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for process, pid in pids.items():
            for found in ProcessCollector(pid=_known(pid), registry=None).collect():
                for sample in found.samples:
                    if sample.name in PROCESS_ROWS:
                        family = families.get(sample.name)
                        if family is None:
                            kind = CounterMetricFamily if found.type == "counter" else GaugeMetricFamily
                            family = kind(sample.name, PROCESS_ROWS[sample.name], labels=["process"])
                            families[sample.name] = family
                        family.add_metric([process], sample.value)
        yield from families.values()
        labels = build(self._version)
        info = GaugeMetricFamily("headwater_build_info", PROCESS_ROWS["headwater_build_info"], labels=[*labels])
        info.add_metric([*labels.values()], 1)
        yield info


def _known(pid: int) -> Callable[[], int]:
    return lambda: pid
