"""Retention overtakes a worker that stands still while the others go on; its clients must get a reset."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack

from tests.live.workers import upkeeper_of, worker_of
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

KEPT = 50


def test_clients_of_a_worker_that_stood_still_beyond_the_retention_get_a_reset() -> None:
    with Server(WEB_CONCURRENCY=2, SSE_RETAIN_EVENTS=KEPT, SSE_WINDOW_BYTES=1024) as server, ExitStack() as stack:
        server.publish("a", "before")
        keeper = eventually(lambda: upkeeper_of(server, server.directory / "h.db"), 10, "nobody keeps the log")
        for _ in range(50):
            client = stack.enter_context(SSEClient(server.port, "/events/a"))
            client.next_event()
            if (stopped := worker_of(server, client.socket)) != keeper:
                break
        else:
            raise AssertionError("fifty connections, and all on one worker")
        seen = server.publish("a", "seen")
        assert client.next_message().id == seen
        os.kill(stopped, signal.SIGSTOP)
        try:
            lines = b"\n".join(b'{"channel":"a","data":"%d"}' % n for n in range(4 * KEPT))
            answer = server.request("POST", "/events", lines, {"Content-Type": "application/x-ndjson"}, timeout=20)
            ids = answer.json()["ids"]

            def trimmed() -> bool:
                with SSEClient(server.port, "/events/a", last_event_id="1-1") as other:
                    reset = other.events_until(lambda event: event.event == "stream-reset")[-1]
                return bool(json.loads(reset.data or "")["oldest"] == ids[-KEPT])

            eventually(trimmed, 10, "the log is not trimmed", interval=0.2)
        finally:
            os.kill(stopped, signal.SIGCONT)
        # Not one event from behind the gap: the stream ends where it is.
        blocks = client.read_to_end(10)
        assert [block.data for block in blocks if not block.is_control] == []
        assert client.ending is Ending.TERMINATED and client.last_event_id == seen
        with SSEClient(server.port, "/events/a", last_event_id=client.last_event_id) as again:
            opening, reset = again.next_event(), again.next_event()
            assert json.loads(reset.data or "")["reason"] == "expired"
            assert opening.id == reset.id
            assert [again.next_message().id for _ in range(KEPT)] == ids[-KEPT:]
        server.wait_for_log('"reason": "fell-behind"')
