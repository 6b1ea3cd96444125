"""Cursor bombs and replay amplification: a small request must not make the server do much work."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from tests.hardening.wire import request
from tests.live.observe import resident_bytes
from tests.support.server import Answer, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

BOMBS = {
    "64 digits": "9" * 62 + "-0",
    "more digits than int() takes": "9" * 5000 + "-0",
    "8,000 digits": "1" * 8000,
    "the largest position and one": f"{2**63}-0",
    "a sequence beyond its bits": "1732345678901-99999999999999999999",
    "negative": "-1-0",
    "0-0": "0-0",
    "hexadecimal": "0x1-0",
    "an exponent": "1e9999-0",
    "underscores": "1_0-0",
    "infinity": "inf-0",
    "nan": "nan",
    "Arabic digits": "١٢-٣".encode().decode("latin-1"),
    "a list": "1-0, 2-0",
    "an SQL text": "0-0' OR 1=1 --",
    "a Redis range": "(0-0",
    "plus": "+",
    "dollar": "$",
    "a Redis id of the newest": ">",
    "earliest, which only since knows": "earliest",
    "a JSON object": '{"$gt":""}',
    "a path": "../../../../etc/passwd",
    "far in the future": "9999999999999-0",
}


@pytest.mark.parametrize("cursor", [pytest.param(cursor, id=name) for name, cursor in BOMBS.items()])
def test_a_cursor_bomb_just_opens_a_stream(open_server: Server, cursor: str) -> None:
    began = time.monotonic()
    with SSEClient(open_server.port, "/events/bombs", last_event_id=cursor) as client:
        assert client.status == 200
        assert client.next_event().id
        assert len(client.body) < 1000
        last = open_server.publish("bombs", "on")
        seen = client.events_until(lambda event: event.id == last)
    told = [json.loads(event.data or "") for event in seen if event.event == "stream-reset"]
    assert all(len(one["requested"]) <= 64 for one in told)
    assert time.monotonic() - began < 2


def test_two_cursors_in_one_request_replay_once(open_server: Server) -> None:
    octets = request("/events/bombs2?since=earliest&since=0&lastEventId=0-0", "Last-Event-ID: 0-0", "Last-Event-ID: 1-1")
    with socket.create_connection(("127.0.0.1", open_server.port), timeout=5) as sock:
        sock.sendall(octets)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


KEY = {"Authorization": "Bearer publish-key-0123456789"}


def _fill(server: Server, channel: str, events: int, size: int) -> None:
    line = json.dumps({"channel": channel, "data": "x" * size})
    _publish(server, "/events", "\n".join([line] * events), {"Content-Type": "application/x-ndjson", **KEY})


def _publish(server: Server, path: str, body: str, headers: dict[str, str]) -> Answer:
    """Publish, and try again while the publish rate refuses it."""
    answers: list[Answer] = []

    def accepted() -> bool:
        answers.append(server.request("POST", path, body, headers, timeout=20))
        assert answers[-1].status in (201, 429), answers[-1].body
        return answers[-1].status == 201

    eventually(accepted, 10)
    return answers[-1]


def test_a_replay_is_never_longer_than_its_limit(limited: Server) -> None:
    """The log holds far more than SSE_REPLAY_LIMIT; the worker's window holds far less."""
    _fill(limited, "long", 3000, 100)
    _fill(limited, "other", 10, 10)
    for query in ("since=earliest", "lastEventId=0-0", "since=0", "since=1"):
        with SSEClient(limited.port, f"/events?channel=long&channel=other&{query}") as client:
            last = _publish(limited, "/events/long", "end", KEY).json()["id"]
            seen = client.events_until(lambda event, last=last: event.id == last, 10)  # type: ignore[misc]
        replayed = [event for event in seen if not event.is_control]
        assert len(replayed) <= 51, query
        assert seen[0].is_opening and [event.event for event in seen[1:] if event.event] == ["stream-reset"], query


def test_probes_stay_fast_during_thousands_of_resumes_with_old_cursors(open_server: Server) -> None:
    """Each resume asks for megabytes, and its client reads the opening at most."""
    line = json.dumps({"channel": "deep", "data": "x" * 1000})
    for _ in range(4):
        answer = open_server.request(
            "POST", "/events", "\n".join([line] * 2000), {"Content-Type": "application/x-ndjson"}, timeout=20
        )
        assert answer.status == 201
    (worker,) = open_server.worker_pids()
    before = resident_bytes(worker)
    over = threading.Event()
    resumes = [0]

    def attack() -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", open_server.port), timeout=5) as sock:
                    sock.sendall(request("/events/deep?since=earliest"))
                    if resumes[0] % 2:
                        sock.recv(1000)
                    resumes[0] += 1
            except OSError:
                pass

    threads = [threading.Thread(target=attack, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    waits = []
    until = time.monotonic() + 15
    while time.monotonic() < until and resumes[0] < 2000:
        began = time.monotonic()
        assert open_server.request("GET", "/healthz", port=open_server.health_port, timeout=5).status == 200
        waits.append(time.monotonic() - began)
    over.set()
    for thread in threads:
        thread.join(6)
    assert resumes[0] >= 500, "the attack itself was too slow to be one"
    assert max(waits) < 2.0, f"{len(waits)} probes, the slowest {max(waits):.2f} s"
    assert resident_bytes(worker) - before < 200e6
