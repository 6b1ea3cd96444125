"""A worker's loops go on after an exception, and the log says so once."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.conftest import StartServer
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

COMMAND = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "tests.live.failing_app:app")
SAID = (
    "upkeep of the worker's connections failed",
    "upkeep of heartbeats and leases failed",
    "the fan-out's passes failed",
    "the drain's last call failed",
)


def test_a_worker_with_bugs_in_its_loops_serves_and_drains(
    start_server: StartServer, open_stream: Callable[..., SSEClient]
) -> None:
    server = start_server(command=COMMAND, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=1)
    worker = server.worker_pids()
    stream = open_stream(server, "/events/a")
    stream.next_event()
    for text in SAID[:-1]:
        server.wait_for_log(text)
    for _ in range(3):
        name = server.publish("a", "x")
        assert stream.next_message().id == name
    assert server.worker_pids() == worker
    server.terminate()
    # The last call comes at the end of the window, and only if something is left: here a client that does not close.
    assert stream.read_to_end(5)[-1].retry is not None
    assert stream.ending is Ending.TERMINATED
    eventually(lambda: "last call failed" in server.log_text(), 3)
    stream.close()
    assert server.wait(8) == 0
    counts = {text: server.log_text().count(text) for text in SAID}
    assert counts == dict.fromkeys(SAID, 1), server.log_tail()
