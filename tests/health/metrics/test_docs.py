"""docs/metrics.md, the table in the code, and the label values in the service agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from health.metrics.processes import build
from health.metrics.table import (
    BOARD_ROWS,
    CLOSE_REASONS,
    CONNECTION_CLOSINGS,
    CONNECTION_STATES,
    PROCESS_ROWS,
    PUBLISH_REFUSALS,
    REFUSALS,
    RESETS,
    ROWS,
    RUN_ENDS,
    RUN_STATES,
    STREAM_STATES,
    Row,
)
from health.signs.board import BOOTING, DRAINING, RUNNING
from sse.events.wire import RESET_REASONS
from sse.runs import states
from sse.streams import stream
from sse.version import VERSION
from sse.web import publishing as endpoints
from sse.worker import connection

ROOT = Path(__file__).parents[3]


class Documented(NamedTuple):
    kind: str
    label: str
    values: tuple[str, ...]


def documented() -> dict[str, Documented]:
    found = {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if line.startswith("| `"):
            name, kind, label, _unit, tells, _hint = (cell.strip() for cell in line.strip("|").split("|"))
            assert tells, name
            key, _, values = label.partition(":")
            assert name not in found
            found[name.strip("`")] = Documented(kind, key.strip("`"), tuple(re.findall(r"[\w-]+", values)))
    return found


def test_the_documented_metrics_are_those_that_exist() -> None:
    assert set(documented()) == {row.name for row in ROWS} | set(BOARD_ROWS) | set(PROCESS_ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_type_label_and_its_values_are_documented(row: Row) -> None:
    assert documented()[row.name] == Documented(row.kind, row.label, row.known)


def test_label_values_are_those_of_the_service() -> None:
    assert set(CLOSE_REASONS) == set(stream.CloseReason)
    assert set(STREAM_STATES) == set(stream.State) - {stream.State.CLOSED}
    assert set(RESETS) == set(RESET_REASONS)
    assert (RUN_STATES, RUN_ENDS) == (states.OPEN, states.ENDS)
    assert set(CONNECTION_CLOSINGS) == set(connection.CLOSINGS)
    assert PUBLISH_REFUSALS == endpoints.PUBLISH_REFUSALS
    assert documented()["health_workers"].values == (BOOTING, RUNNING, DRAINING)
    # The service has no lists of these, so look for each in the code that refuses or counts.
    places = ("streams/admission.py", "web/streaming.py", "worker/worker.py", "worker/connection.py", "worker/deadlines.py")
    code = "".join((ROOT / "sse" / name).read_text() for name in places)
    assert all(f'"{word}"' in code for word in (*REFUSALS, *CONNECTION_STATES))
    assert set(re.findall(r'refused\["([\w-]+)"\]', code)) <= set(REFUSALS)


def test_the_build_info_has_this_version() -> None:
    assert build(VERSION)["version"] == VERSION and all(build(VERSION).values())
    assert documented()["headwater_build_info"].label.replace("`", "").split(", ") == list(build(VERSION))


def test_dashboards_and_alerts_use_metrics_that_exist() -> None:
    files = [path for path in (ROOT / "k8s" / "variants" / "monitoring").rglob("*") if path.is_file()]
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for path in files
        for name in re.findall(r"\b(?:sse|health|headwater)_[a-z_]+", path.read_text())
    }
    assert asked
    assert asked - set(documented()) == set()
