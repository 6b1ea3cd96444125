"""A rolling restart of three instances behind nginx with 200 runs in progress and 400 readers."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.runs import Runs, Started, note_runs
from tests.live.crowd import Crowd, Member
from tests.support.wait import eventually

RUNS, READERS = 200, 400
GRACE = 8.0  # seconds
# A token each so often, seconds: the clients and all instances share two cores.
PAUSE = 0.2


def end_of(member: Member) -> dict[str, Any] | None:
    """The end of a member's run, if it has ended."""
    ends = [block for one in member.connections for block in one.blocks if block.event == "run"]
    assert len(ends) <= 1, f"client {member.number}: {ends}"
    return json.loads(ends[0].data or "") if ends else None


def told(member: Member) -> bool:
    return b"event: run\n" in member.raw or end_of(member) is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_reader_of_a_run_that_was_given_its_grace_sees_every_token_once_and_all_others_are_told(
    stack: ExitStack,
) -> None:
    """Of three runs of an instance, two end within its grace, and the third would go on for ever."""
    fleet = stack.enter_context(
        Fleet(
            3,
            app="tests.chaos.runs_app:app",
            SSE_DRAIN_DELAY=0.2,
            SSE_DRAIN_WINDOW=2,
            SSE_RETRY=500,
            SSE_RUN_GRACE=GRACE,
        )
    )
    runs = Runs(fleet)

    def start(number: int) -> Started:
        instance = number % 3
        until = f"never-{number}" if number // 3 % 3 == 2 else f"leaving-{instance}"
        return runs.start(fleet.servers[instance].port, count=1_000_000, pause=PAUSE, until=until)

    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(start, range(RUNS)))
    crowd = Crowd(
        fleet.port,
        lambda number: f"/events/{started[number % RUNS].channel}?since=earliest",
        READERS,
        come_back=lambda member: end_of(member) is None,
    )
    left = []
    with crowd:
        crowd.wait_open(60)
        for instance, server in enumerate(fleet.servers):
            fleet.nginx.serve([port for port in fleet.ports if port != server.port])
            server.terminate()
            began = time.monotonic()
            # Longer than the drain of its streams, so these readers watch the ends from elsewhere.
            eventually(lambda began=began: time.monotonic() > began + GRACE / 2, GRACE)  # type: ignore[misc]
            fleet.book.with_name(f"runs-leaving-{instance}").touch()
            server.wait(GRACE + 20)
            left.append(time.monotonic() - began)
            server.start()
            fleet.nginx.serve(fleet.ports)
        eventually(lambda: all(told(member) for member in crowd.members), 60, lambda: f"{crowd}", interval=0.5)
    assert not crowd.errors()
    ends: dict[str, dict[str, Any]] = {}
    seen = 0
    for member in crowd.members:
        end = end_of(member)
        assert end is not None
        run = started[member.number % RUNS]
        assert end["run"] == run.run
        tokens = [block.data for block in member.messages if block.event is None]
        assert tokens == [str(number) for number in range(end["events"])], f"client {member.number}: {end}"
        given = (member.number % RUNS) // 3 % 3 != 2
        assert (end["state"], end.get("error")) == (("done", None) if given else ("lost", "drained")), end
        assert ends.setdefault(end["run"], end) == end, "two readers were told two ends"
        assert {one.status for one in member.connections if one.status} == {200}
        assert not any(block.event == "stream-reset" for one in member.connections for block in one.blocks)
        seen += len(tokens)
    assert len(ends) == RUNS
    note = f"instances left after {', '.join(f'{seconds:.1f}' for seconds in left)} s (grace {GRACE:g} s)"
    note_runs(
        "rolling restart of 3 instances in the middle of runs",
        list(ends.values()),
        READERS,
        seen,
        len(crowd.attempts) - READERS,
        note,
    )
    # The lost ones were told from their last token on; the log of each instance says how many it waited for.
    for server in fleet.servers:
        assert re.search(r"draining: \d+ runs", server.log_text()), server.log_tail()
