"""The fleet that most tests share, and what the suite has counted, at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.reader import BOOK

WRITE_TIMEOUT = 1.5  # seconds; the silent clients of one test are given up that soon


@pytest.fixture(scope="package")
def fleet() -> Iterator[Fleet]:
    """Two instances of two workers for all tests that leave them as they were."""
    with Fleet(2, workers=2, SSE_WRITE_TIMEOUT=WRITE_TIMEOUT) as fleet:
        yield fleet


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not BOOK:
        return
    terminalreporter.section("chaos: acknowledged = seen once, in order; or told")
    for entry in BOOK:
        terminalreporter.write_line(
            f"{entry.fault}: {entry.acknowledged} acknowledged, {entry.clients} clients saw {entry.deliveries}, "
            f"{entry.reconnects} reconnects; lost, repeated, out of order 0"
            + (f"; {entry.lost} gone with the old log, told by {entry.resets} resets" if entry.resets else "")
            + (f"; {entry.note}" if entry.note else "")
        )
    total, seen = sum(one.acknowledged for one in BOOK), sum(one.deliveries for one in BOOK)
    terminalreporter.write_line(f"in all: {len(BOOK)} faults, {total} acknowledged, {seen} deliveries")
