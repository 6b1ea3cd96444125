"""Generator streams under other servers: gunicorn's gevent and gthread, Flask's development server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.live.other_servers import GTHREAD, OTHERS, UWSGI, start
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient, StreamEnded
from tests.support.sse_parser import StreamEvent
from tests.support.wait import eventually

PLACES = 2  # streams at once: what gthread's four threads leave, and SSE_MAX_STREAMS elsewhere

Open = Callable[..., tuple[SSEClient, StreamEvent]]


@pytest.fixture(scope="module", params=OTHERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with room for two streams. It notices at the next heartbeat that a client has left."""
    with closing(start(request.param, SSE_MAX_STREAMS=PLACES, SSE_HEARTBEAT=0.2)) as running:
        yield running


@pytest.fixture
def open_one(server: Server) -> Iterator[Open]:
    """Open a stream, once there is room for it, and read its opening."""
    with ExitStack() as stack:

        def open_one(target: str, last_event_id: str | None = None) -> tuple[SSEClient, StreamEvent]:
            def attempt() -> tuple[SSEClient, StreamEvent] | None:
                client = stack.enter_context(SSEClient(server.port, target, last_event_id=last_event_id))
                assert (client.status, client.headers["content-type"]) == (200, "text/event-stream")
                first = client.next_event()
                return (client, first) if client.ending is Ending.OPEN else None  # else it was sent away

            found = eventually(attempt, 10, "the places of clients that have gone are not free again", interval=0.1)
            assert found is not None
            return found

        yield open_one


def test_events_are_received_at_once_and_in_order(server: Server, open_one: Open) -> None:
    client, opening = open_one("/events/order")
    assert opening.is_opening and opening.retry == 2000
    ids = [server.publish("order", f"{n}", "?event=e") for n in range(20)]
    events = [client.next_message() for _ in ids]
    assert [(event.id, event.event, event.data) for event in events] == [(ids[n], "e", f"{n}") for n in range(20)]


def test_answers_have_a_request_id_under_other_servers(server: Server, open_one: Open) -> None:
    given = server.request("POST", "/events/ids", b"x", {"X-Request-ID": "abc-1"}).headers.get_all("X-Request-ID")
    refused = server.request("GET", "/events/-", headers={"X-Request-ID": "no good"}).headers.get_all("X-Request-ID")
    client, _ = open_one("/events/ids")
    assert given == ["abc-1"]
    for made in (*(refused or ()), client.headers["x-request-id"]):
        assert re.fullmatch("[0-9a-f]{16}", made)
    assert refused is not None and len(refused) == 1


def test_a_client_resumes_exactly_after_its_cursor(server: Server, open_one: Open) -> None:
    client, _ = open_one("/events/resume")
    server.publish("resume", "1")
    assert client.next_message().data == "1"
    client.close()
    for n in "234":
        server.publish("resume", n)
    again, _ = open_one("/events/resume", client.last_event_id)
    assert [again.next_message().data for _ in range(3)] == ["2", "3", "4"]
    server.publish("resume", "5")
    assert again.next_message().data == "5"


def test_a_quiet_stream_gets_heartbeats_whose_id_resumes_exactly(server: Server, open_one: Open) -> None:
    client, _ = open_one("/events/quiet")
    moved = server.publish("busy", "x")
    client.events_until(lambda event: event.is_heartbeat and event.id == moved, 5)
    client.close()
    server.publish("quiet", "missed")
    again, opening = open_one("/events/quiet", client.last_event_id)
    assert opening.id == moved
    assert again.next_message().data == "missed"


def test_several_channels_are_in_order_and_a_batch_arrives_whole(server: Server, open_one: Open) -> None:
    client, _ = open_one("/events?channel=m1&channel=m2")
    lines = b"\n".join(b'{"channel":"m%d","data":"%d"}' % (n % 3, n) for n in range(300))
    answer = server.request("POST", "/events", lines, {"Content-Type": "application/x-ndjson"})
    assert answer.status == 201 and len(answer.json()["ids"]) == 300
    assert [client.next_message().data for _ in range(200)] == [str(n) for n in range(300) if n % 3]


def test_a_stream_beyond_the_limit_ends_cleanly_and_gets_in_once_another_has_left(
    server: Server, open_one: Open
) -> None:
    clients = [open_one("/events/full")[0] for _ in range(PLACES)]
    with SSEClient(server.port, "/events/full") as refused:
        (told,) = refused.read_to_end()
        assert (refused.status, refused.headers["content-type"]) == (200, "text/event-stream")
        assert told.is_opening and told.id and 1000 <= (told.retry or 0) <= 3000
        assert refused.ending.clean
    clients[0].close()
    open_one("/events/full")


@pytest.mark.parametrize(("kind", "hooks"), [(GTHREAD, True), (GTHREAD, False), (UWSGI, False)])
def test_two_threads_stay_free_for_everything_else(kind: str, hooks: bool) -> None:
    with closing(start(kind, hooks=hooks, SSE_HEARTBEAT=0.3)) as server, ExitStack() as stack:
        opened: list[SSEClient] = []
        refused = 0
        for _ in range(8):
            client = stack.enter_context(SSEClient(server.port, "/events/t"))
            assert client.next_event().id  # also for one that is sent away: it misses nothing until it is let in
            try:
                client.next_event()  # a heartbeat
            except StreamEnded:
                refused += 1
                assert client.ending.clean
            else:
                opened.append(client)
        assert (len(opened), refused) == (2, 6)
        for n in range(5):
            assert server.request("GET", "/healthz").status == 200
            assert server.request("GET", "/readyz", port=server.port if kind == UWSGI else server.health_port).status == 200
            server.publish("t", str(n))
        for client in opened:
            assert [client.next_message().data for _ in range(5)] == list("01234")
