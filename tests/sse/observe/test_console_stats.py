"""The ``stats`` events that a worker sends to the console."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from sse.observe.console_stats import Reporter
from sse.streams.hub import Hub
from tests.sse.worker_parts import Parts
from tests.support.sse_parser import EventParser


@pytest.fixture
def worker(closing: ExitStack) -> Parts:
    return closing.enter_context(Parts("memory:"))


def reported(worker: Parts, report: Callable[[Hub], bytes]) -> dict[str, Any]:
    """The members of the next report."""
    (block,) = EventParser().feed(report(worker.hub))
    assert block.event == "stats" and block.id is None, "an id would move the client's cursor"
    members: dict[str, Any] = json.loads(block.data or "")
    return members


def test_a_report_has_the_workers_numbers(worker: Parts) -> None:
    stream = worker.open(None)
    worker.append("1")
    stream.read(1)
    stats = worker.hub.stats
    stats.opened, stats.published, stats.delivered, stats.bytes_sent = 5, 4, 3, 2
    before = time.time()
    members = reported(worker, Reporter(worker.hub.stats, "memory"))
    assert -1 < members.pop("at") - before * 1000 < 10_000
    assert 0 <= members.pop("tail_age") < 3
    assert members == {
        "pid": os.getpid(),
        "log": "memory",
        "streams": {"replaying": 1},
        "opened": 5,
        "published": 4,
        "delivered": 3,
        "bytes": 2,
        "delivery_p99": None,
    }


def test_the_delivery_percentile_covers_the_time_since_the_last_report(worker: Parts) -> None:
    delivery = worker.hub.stats.delivery
    delivery.observe(9.0, 1000)
    report = Reporter(worker.hub.stats, "memory")
    assert reported(worker, report)["delivery_p99"] is None, "nothing was delivered since"
    delivery.observe(0.02, 100)
    assert reported(worker, report)["delivery_p99"] == 0.025
    delivery.observe(0.002, 100)
    assert reported(worker, report)["delivery_p99"] == 0.0025
    assert reported(worker, report)["delivery_p99"] is None


def test_health_s_members_are_added_and_win(worker: Parts) -> None:
    report = Reporter(worker.hub.stats, "memory", lambda: {"canary_age": 0.5, "delivered": 77})
    members = reported(worker, report)
    assert (members["canary_age"], members["delivered"], members["log"]) == (0.5, 77, "memory")
