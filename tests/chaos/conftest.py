"""What the chaos suite has counted, at the end of a run."""

from __future__ import annotations

from typing import Any

from tests.chaos.reader import BOOK


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
