"""A SQLite backup is restored while clients are away: their streams tell them that events are missing."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

from tests.support.server import Server
from tests.support.sse_client import SSEClient


def test_a_client_from_after_the_backup_gets_a_reset_but_none_after_a_plain_restart() -> None:
    with Server(LOG_LEVEL="warning", WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as server:
        path = server.directory / "h.db"

        def publish(data: str) -> str:
            answer = server.request("POST", "/events/a", data)
            assert answer.status == 201
            return str(answer.json()["id"])

        before = publish("before the backup")
        with closing(sqlite3.connect(path)) as database:
            database.execute("VACUUM INTO ?", (str(server.directory / "backup.db"),))
        seen, missed = publish("seen"), publish("missed")
        server.restart()
        with SSEClient(server.port, "/events/a", last_event_id=before) as client:
            told = client.events_until(lambda event: event.data == "missed")
            assert [event.id for event in told if not event.is_control] == [seen, missed]
            assert not [event for event in told if event.event == "stream-reset"], "a plain restart"
        server.terminate()
        assert server.wait() == 0
        for name in ("h.db-wal", "h.db-shm"):
            (server.directory / name).unlink(missing_ok=True)
        os.replace(server.directory / "backup.db", path)
        server.start()
        after = publish("after the backup")
        for cursor in (seen, before):
            with SSEClient(server.port, "/events/a", last_event_id=cursor) as client:
                told = client.events_until(lambda event: event.data == "after the backup")
                (reset,) = [event for event in told if event.event == "stream-reset"]
                assert json.loads(reset.data)["reason"] == "expired" and told[-1].id == after
        with SSEClient(server.port, "/events/a", last_event_id=after) as client:
            newest = publish("newest")
            told = client.events_until(lambda event: event.data == "newest")
            assert not [event for event in told if event.event == "stream-reset"] and told[-1].id == newest
        assert server.log_text().count("Clients that resume are told") == 1
