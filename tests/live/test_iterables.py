"""``sse.response`` under three servers: silence, clients that leave, iterables that raise."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.other_servers import GEVENT, GTHREAD, OURS, start
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

KINDS = (OURS, GEVENT, GTHREAD)


class Place:
    """A server with tests/live/iterables_app.py, and the directory of its notes."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self.notes = kind, directory
        self.server: Server = start(
            kind,
            "tests.live.iterables_app:app",
            FLASK_NOTES=str(directory),
            FLASK_SSE_HEARTBEAT=0.2,
            FLASK_SSE_LOG="memory:",
        )

    def note(self, name: str) -> str | None:
        path = self.notes / name
        return path.read_text() if path.exists() else None


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    running = Place(request.param, tmp_path_factory.mktemp("notes"))
    with closing(running.server):
        yield running


def test_a_silent_iterable_is_filled_with_heartbeat_comments(place: Place) -> None:
    with SSEClient(place.server.port, "/silent/heartbeats") as client:
        assert client.headers["content-type"] == "text/event-stream"
        assert client.headers["cache-control"] == "no-store, no-transform"
        assert client.next_event().data == "thinking"
        with pytest.raises(TimeoutError):
            client.next_event(0.9)
        assert client.comments >= 3


@pytest.mark.parametrize("way", ["close", "abort"])
def test_the_iterable_is_closed_soon_after_the_client_has_gone(place: Place, way: str) -> None:
    name = f"gone-{way}"
    view = "ticking" if place.kind == GTHREAD else "silent"  # a thread cannot be woken out of a sleep
    with SSEClient(place.server.port, f"/{view}/{name}") as client:
        client.next_event()
        began = time.monotonic()
        getattr(client, way)()
        eventually(lambda: place.note(name), 10, "the iterable is not closed")
        took = time.monotonic() - began
    if place.kind == OURS:
        # Seen by the hang-up itself, within half a second; elsewhere by the write that fails.
        assert took < 2.5, f"closed {took:.1f} s after the client went"


def test_a_slow_client_slows_the_iterable_down(place: Place) -> None:
    with SSEClient(place.server.port, "/endless/slow", receive_buffer=4096) as client:
        client.next_event()
        time.sleep(0.5)
        ids = [int(client.next_event().id or 0) for _ in range(100)]
        assert ids == list(range(1, 101))
    eventually(lambda: place.note("slow"), 10)
    # What the socket buffers take (some MB), and no more.
    assert int(place.note("slow") or 0) < 20_000


def test_an_exception_is_an_error_event_a_clean_end_and_a_log_line(place: Place) -> None:
    with SSEClient(place.server.port, "/raising") as client:
        *events, error, end = client.read_to_end()
        assert [event.data for event in events] == ["one", "two"]
        assert end.event == "stream-end"
        assert error.event == "error" and "title" in json.loads(error.data or "")
        assert client.ending is Ending.TERMINATED
        assert b"fell over" not in client.body
    place.server.wait_for_log("the model fell over")
    place.server.wait_for_log("raised after 2 events")


def test_others_are_served_while_iterables_run(place: Place) -> None:
    with SSEClient(place.server.port, "/ticking/a") as one, SSEClient(place.server.port, "/endless/b") as two:
        for _ in range(3):
            assert one.next_event().data == "tick"
            two.next_event()
            began = time.monotonic()
            place.server.publish("news", "x")
            assert time.monotonic() - began < 2


# ── an example, as a user starts it ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_app_streams_each_order_to_its_listeners(kind: str, tmp_path: Path) -> None:
    settings = {"FLASK_SSE_LOG": f"sqlite:///{tmp_path}/own.db"}
    with (
        closing(start(kind, "examples.own_app:app", **settings)) as server,
        SSEClient(server.port, "/events/orders") as client,
    ):
        client.next_event()
        answer = server.request("POST", "/orders", '{"item": "tea"}', {"Content-Type": "application/json"})
        assert answer.status == 201
        event = client.next_message()
        assert (event.id, event.event) == (answer.json()["event"], "created")
        assert json.loads(event.data or "") == {"number": 1, "item": "tea"}
