"""Patterns, forms, ends, erasure and revocation, as connections see them: real gunicorn, real sockets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from sse.events.markers import own_event
from sse.events.names import CONTROL_CHANNEL
from sse.log import Log, open_log
from tests.live.observe import closed, streams
from tests.live.test_slow_readers import SMALL, publish_many
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

# Our own worker takes sockets over; with gunicorn's gevent worker, generators serve the streams.
WORKERS = {"taken over": (), "generators": ("-k", "gevent")}


@pytest.fixture(scope="module", params=WORKERS.values(), ids=WORKERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(
        "--workers", "2", *request.param, SSE_HEARTBEAT=0.5, SSE_AUTH="none", SSE_CORS_ORIGINS="https://shop.example"
    ) as running:
        yield running


def log_of(server: Server) -> Log:
    """Open the server's log, as another process that uses it."""
    return open_log(f"sqlite:///{server.directory}/h.db", retain_events=10**6, retain_seconds=10**6)


def revoke(server: Server, **what: str) -> None:
    with closing(log_of(server)) as log:
        log.append([own_event(CONTROL_CHANNEL, "revoke", json.dumps({**what, "at": 0}))])


def messages(client: SSEClient, count: int) -> list[str | None]:
    return [client.next_message().data for _ in range(count)]


# ── patterns and forms ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("target", ["/events/room:*", "/events?channel=room:*&channel=room:1"])
def test_a_pattern_is_one_subscription_like_any_other(server: Server, target: str) -> None:
    with SSEClient(server.port, target) as client:
        client.next_event()
        ids = [server.publish(channel, channel) for channel in ("room:1", "room", "room:2:b", "roomy", "room:1")]
        assert messages(client, 3) == ["room:1", "room:2:b", "room:1"]
    with SSEClient(server.port, target, last_event_id=ids[0]) as client:
        assert messages(client, 2) == ["room:2:b", "room:1"]
        assert client.last_event_id == ids[4]


def test_an_envelope_names_the_channel_and_keeps_the_text(server: Server) -> None:
    with SSEClient(server.port, "/events/*?envelope=1") as client:
        client.next_event()
        position = server.publish("a:1", "one\r\ntwo", "?event=created")
        event = client.next_message()
        assert (event.id, event.event) == (position, "created")
        assert json.loads(event.data or "") == {
            "channel": "a:1",
            "id": position,
            "event": "created",
            "data": "one\r\ntwo",
        }


def test_a_plain_stream_carries_only_what_was_published(server: Server) -> None:
    with SSEClient(server.port, "/events/plain?plain=1&since=nonsense") as client:
        ids = [server.publish("plain", "1"), server.publish("plain", "2")]
        assert [(event.id, event.data) for event in client.events_until(lambda e: e.data == "2", 5)] == [
            (ids[0], "1"),
            (ids[1], "2"),
        ]
        with contextlib.suppress(TimeoutError):
            client.next_event(1.4)  # SSE_HEARTBEAT passes twice
        assert client.comments >= 3
        server.request("POST", "/events/plain?close=1")
        client.read_to_end(5)
        assert client.ending is Ending.TERMINATED
    lines = bytes(client.body).decode().splitlines()
    ours = [line for line in lines if not line.startswith(("id: ", "data: ")) and line]
    assert [line.split()[:2] for line in ours if not line.startswith(": heartbeat ")] == [
        [":", "stream-reset"],
        [":", "stream-end"],
        ["retry:", lines[-1].split()[1]],
    ]
    assert lines.count("") == 3, "the opening's and one for each event"


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_closed_channel_ends_its_streams_on_all_workers_and_is_then_204(server: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(server.port, "/events/ends")) for _ in range(8)]
        for client in clients:
            client.next_event()
        first = server.publish("ends", "1")
        server.request("POST", "/events/ends?close=1", "2")
        for client in clients:
            blocks = client.read_to_end(5)
            assert client.ending is Ending.TERMINATED
            assert [block.data for block in blocks if not block.is_control] == ["1", "2"]
            (end,) = [block for block in blocks if block.event == "stream-end"]
            assert json.loads(end.data or "") == {"channel": "ends"}
            assert client.last_event_id == end.id
    cors = {"Origin": "https://shop.example"}
    for target, headers in (
        ("/events/ends", {"Last-Event-ID": client.last_event_id}),
        ("/events/ends", {}),
        (f"/events?channel=ends&since={client.last_event_id}", {}),
    ):
        answer = server.request("GET", target, headers={**headers, **cors})
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["X-Request-ID"]
        assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    for target, expected in (("/events/ends?since=earliest", ["1", "2"]), (f"/events/ends?since={first}", ["2"])):
        with SSEClient(server.port, target) as again:
            blocks = again.read_to_end(5)
            assert [block.data for block in blocks if not block.is_control] == expected
            assert again.last_event_id == client.last_event_id
    assert server.request("POST", "/events/ends", "3").status == 409


# ── erasure ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_streams_of_an_erased_channel_are_told_and_go_on(server: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(server.port, "/events/person:*")) for _ in range(6)]
        first = server.publish("person:1", "secret")
        other = server.publish("person:2", "kept")
        with closing(log_of(server)) as log:
            erased = log.erase("person:1")
        assert erased.events == 1
        server.publish("person:1", "again")
        for client in clients:
            blocks = client.events_until(lambda block: block.data == "again", 5)
            (reset,) = [block for block in blocks if block.event == "stream-reset"]
            assert json.loads(reset.data or "")["reason"] == "erased"
            assert json.loads(reset.data or "")["channel"] == "person:1"
    for cursor in ("1-1", first, other):
        with SSEClient(server.port, "/events/person:*", last_event_id=cursor) as client:
            blocks = client.events_until(lambda block: block.data == "again", 5)
            assert b"secret" not in client.body
            assert len([block for block in blocks if block.data == "kept"]) == (cursor != other)


def test_a_slow_reader_of_an_erased_channel_is_cut_and_resumes_without_it() -> None:
    """Bytes of erased events wait for it in the worker, and must not be sent any more."""
    with Server(SSE_WRITE_TIMEOUT=0, SSE_HEARTBEAT=600, SSE_AUTH="none") as server:
        with SSEClient(server.port, "/events/slow", receive_buffer=SMALL) as slow:
            slow.next_event()
            publish_many(server, "slow", 400, 10_000)
            eventually(lambda: streams(server, "lagging") == 1, 5)
            with closing(log_of(server)) as log:
                log.erase("slow")
            eventually(lambda: closed(server) == {"erased": 1}, 5, lambda: str(closed(server)))
            got = slow.read_to_end(10)
            assert slow.ending in (Ending.CUT, Ending.RESET)
            assert len(got) < 400
        server.publish("slow", "new")
        with SSEClient(server.port, "/events/slow", last_event_id=slow.last_event_id) as again:
            blocks = again.events_until(lambda block: block.data == "new", 5)
            assert [block.event for block in blocks] == ["heartbeat", "stream-reset", None]
            assert json.loads(blocks[1].data or "")["reason"] == "erased"
        server.wait_for_log('"reason": "erased"')


# ── revocation ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(lambda mine: {"channel": "mine"}, id="channel"),
        pytest.param(lambda mine: {"channel": "min*"}, id="pattern"),
        pytest.param(lambda mine: {"request": mine}, id="request"),
    ],
)
def test_revoked_streams_end_cleanly_and_others_do_not(server: Server, what: Callable[[str], dict[str, str]]) -> None:
    before = closed(server).get("revoked", 0)
    with ExitStack() as stack:
        mine = stack.enter_context(SSEClient(server.port, "/events/mine"))
        others = [stack.enter_context(SSEClient(server.port, "/events/others")) for _ in range(4)]
        for client in (mine, *others):
            client.next_event()
        revoke(server, **what(dict(mine.raw_headers)["x-request-id"]))
        blocks = mine.read_to_end(5)
        assert mine.ending is Ending.TERMINATED and blocks[-1].retry is not None
        server.publish("others", "still here")
        for client in others:
            assert client.next_message().data == "still here"
        eventually(lambda: closed(server).get("revoked", 0) == before + 1, 5)


def test_the_reason_of_a_revoked_stream_is_in_the_access_log(server: Server) -> None:
    with SSEClient(server.port, "/events/logged") as client:
        client.next_event()
        revoke(server, channel="logged")
        client.read_to_end(5)
    server.wait_for_log('"reason": "revoked"')
