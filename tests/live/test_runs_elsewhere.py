"""Runs under servers that are not ours: the same life, but no drain that waits for them."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.other_servers import FLASK, GEVENT, GTHREAD, start
from tests.live.test_runs import history, notes, numbers, pod, run_of, split, wait_state
from tests.support.sse_client import SSEClient


@pytest.mark.parametrize("kind", [GEVENT, GTHREAD, FLASK])
def test_a_run_under_another_server(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    there = start(kind, "tests.live.runs_app:app", SSE_LOG=url, FLASK_SSE_LOG=url, NOTES=str(tmp_path))
    with closing(there), pod(tmp_path) as ours:
        with SSEClient(there.port, "/ticks/watched?count=30&pause=0.02", method="POST") as client:
            blocks = client.events_until(lambda block: block.event == "stream-end", 15)
        items, (end,) = split(blocks)
        assert items == numbers(30) and end["state"] == "done"

        stopped = there.request("POST", "/start/stubborn/stopped").text
        assert ours.request("POST", f"/runs/{stopped}/stop").status == 202
        wait_state(ours, stopped, "stopped")

        silent = there.request("POST", "/start/silent/quiet").text
        with SSEClient(there.port, "/ticks/going?count=100000&pause=0.02", method="POST") as client:
            client.next_message()
        there.terminate()
        began = time.monotonic()
        going = run_of(ours, "going")
        for run in (going, silent):
            wait_state(ours, run, "lost", seconds=12)
        print(f"{kind}: lost after {time.monotonic() - began:.1f} s")
        items, ends = history(ours, "going")
        assert items == numbers(len(items)) and [one["state"] for one in ends] == ["lost"]
        there.wait(10)
        assert notes(tmp_path, "going")[0] == "begun"
