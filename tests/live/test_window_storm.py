"""A crowd resumes at once, all within the window: the worker does not read the log file for it."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.crowd import Crowd, Member
from tests.live.other_servers import OURS, start
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

MOST = 2000  # clients
EVENTS = 40


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit of descriptors, here and for the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MOST + 500:
        pytest.skip(f"needs {MOST + 500} open files, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MOST + 500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def reads_of(server: Server) -> tuple[int, int]:
    """Return the log's reads for streams, and all bytes that the worker has read with read() and pread()."""
    told = server.request("GET", "/reads", timeout=20).json()
    lines = Path(f"/proc/{told['pid']}/io").read_text().splitlines()
    return told["reads"], int(lines[0].removeprefix("rchar: "))


@pytest.mark.parametrize("clients", [500, pytest.param(MOST, marks=pytest.mark.slow)])
def test_clients_that_resume_at_once_within_the_window_cause_no_read_of_the_log(many_files: None, clients: int) -> None:
    with closing(start(OURS, "tests.live.counting_app:app", LOG_LEVEL="warning")) as server:
        ids = [server.publish("storm", f"{n} {'x' * 200}") for n in range(EVENTS)]
        server.kill()
        server.start()  # the window is warmed from the log, as after a rolling restart
        crowd = Crowd(server.port, "/events/storm", clients)
        for member in crowd.members:
            member.last_event_id = ids[member.number % (EVENTS - 1)]

        def complete(member: Member) -> bool:
            return b"data: 39 " in member.raw

        eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 200)
        calls, octets = reads_of(server)
        began = time.monotonic()
        with crowd:
            eventually(lambda: all(map(complete, crowd.members)), 60, lambda: f"{crowd}", interval=0.1)
            took = time.monotonic() - began
            calls_after, octets_after = reads_of(server)
        owed = {member.number: ids[member.number % (EVENTS - 1) + 1 :] for member in crowd.members}
        sent = sum(map(len, owed.values()))
        print(f"{clients} clients were sent {sent} events in {took:.1f} s; bytes read: {octets_after - octets}")
        assert not crowd.errors()
        for member in crowd.members:
            assert [block.id for block in member.messages] == owed[member.number]
        assert calls_after == calls, "the engine was asked"
        # The events sent are 2 MB and more. Requests come by recv, which this figure does not count: nothing else is
        # left but wake-ups, and the upkeep's own looks at the file.
        assert octets_after - octets < 100_000
        # And it would have been seen: a cursor from before the log is the log's business.
        with SSEClient(server.port, "/events/storm", last_event_id="1-1") as client:
            assert client.events_until(lambda event: event.id == ids[-1])[1].event == "stream-reset"
        assert reads_of(server)[0] > calls
