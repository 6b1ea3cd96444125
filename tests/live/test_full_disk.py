"""On a full disk publishers get 503, streams go on, and publishing works again once there is room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.live.observe import samples
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

EVENT = b"x" * 60_000


def test_a_full_disk_refuses_only_publishers(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_500_000))
    settings: dict[str, Any] = {"WEB_CONCURRENCY": 2, "SSE_HEARTBEAT": 0.3, "SSE_LOG": f"sqlite:///{small_disk}/h.db"}
    with Server(**settings) as server, SSEClient(server.port, "/events/a") as client:
        begin = client.next_event().id or ""

        def publish(body: bytes = EVENT) -> int:
            answer = server.request("POST", "/events/a", body, {"Idempotency-Key": f"k{len(acknowledged)}"})
            if answer.status == 201:
                acknowledged.append(answer.json()["id"])
            else:
                assert answer.status == 503, answer.body
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert int(answer.headers["Retry-After"]) >= 1
                assert "nothing was stored" in answer.json()["detail"]
                assert str(small_disk) not in answer.text, "where the log lies is not a client's business"
            return answer.status

        acknowledged: list[str] = []
        eventually(lambda: "sse_log_free_bytes" in samples(server), 5)
        assert 0 < samples(server)["sse_log_free_bytes"] < 3_000_000 and samples(server)["sse_log_bytes"] > 0
        assert "[+]appends ok" in server.request("GET", "/readyz?verbose", port=server.health_port).text
        while publish() == 201:
            assert len(acknowledged) < 200, "the disk does not fill"
        assert len(acknowledged) > 3
        # Refused again and again, on both workers; batches, too. Not one of them is stored.
        for _ in range(6):
            assert publish() == 503
        lines = b"\n".join([b'{"channel":"a","data":"%s"}' % EVENT] * 5)
        batch = server.request("POST", "/events", lines, {"Content-Type": "application/x-ndjson"})
        assert batch.status == 503
        # The operator sees it, whichever worker is asked.
        eventually(lambda: samples(server)['sse_publishes_refused_total{reason="log"}'] == 8, 5)
        eventually(lambda: samples(server)["sse_log_oldest_timestamp_seconds"] >= 0)

        def appends() -> str:
            verbose = server.request("GET", "/readyz?verbose", port=server.health_port)
            assert verbose.status == 200, "degraded, and not taken out: no other pod could do better"
            return next(line for line in verbose.text.splitlines() if "appends" in line)

        eventually(lambda: appends().startswith("[-]appends failed: the log refused an append of"), 5)
        assert "degraded" in appends()
        # Streams, old and new, go on: events, heartbeats, resumes. So do the probes.
        seen = [client.next_message(10).id for _ in acknowledged]
        assert seen == acknowledged
        client.events_until(lambda event: event.is_heartbeat, 5)
        with SSEClient(server.port, "/events/a", last_event_id=begin) as late:
            assert [late.next_message(10).id for _ in acknowledged] == acknowledged
        assert server.request("GET", "/healthz").status == 200
        eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 200, 10)
        # Room again: the same request as was refused is stored now, once.
        filler.unlink()
        before = len(acknowledged)
        eventually(lambda: publish() == 201, 10, "publishing does not work again")
        assert publish(b"small") == 201
        # Until each worker that was refused has published again, or for half a minute.
        eventually(lambda: publish(b"small") == 201 and appends() == "[+]appends ok", 35, interval=0.2)
        assert [client.next_message(10).id for _ in acknowledged[before:]] == acknowledged[before:]
        with SSEClient(server.port, "/events/a", last_event_id=begin) as late:
            assert [late.next_message(10).id for _ in acknowledged] == acknowledged
        assert "Traceback" not in server.log_text()
        assert "disk is full" in server.log_text(), "the operator is told"
