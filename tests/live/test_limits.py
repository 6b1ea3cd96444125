"""Leases end streams and limits refuse them, in a way that makes an EventSource come back later."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.conftest import StartServer
from tests.live.observe import closed, samples, stream_lines
from tests.support.resuming_client import ResumingClient
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]

MAX_AGE = 2.0


def test_streams_end_cleanly_after_their_lease_and_not_all_at_once(
    start_server: StartServer, open_stream: OpenStream
) -> None:
    server = start_server(SSE_MAX_STREAM_AGE=MAX_AGE, SSE_RETRY=1000)
    clients = [open_stream(server, f"/events/{number % 3}") for number in range(40)]
    for client in clients:
        blocks = client.read_to_end(MAX_AGE + 3)
        assert client.ending is Ending.TERMINATED
        assert blocks[-1].retry and 500 <= blocks[-1].retry <= 1500
    eventually(lambda: len(stream_lines(server)) == 40, 2)
    ages = [float(line["duration"]) for line in stream_lines(server)]
    # The lease is looked at once a second.
    assert all(MAX_AGE * 0.8 <= age <= MAX_AGE + 2.5 for age in ages), sorted(ages)
    assert max(ages) - min(ages) > 0.1
    assert {line["reason"] for line in stream_lines(server)} == {"lease"}
    assert closed(server) == {"lease": 40}


def test_a_client_loses_nothing_across_its_leases(start_server: StartServer) -> None:
    server = start_server(SSE_MAX_STREAM_AGE=0.4, SSE_RETRY=50)
    sent = []
    with ResumingClient(server.port, "/events/a") as client:
        client.wait_connected()
        while client.connections < 3:
            sent.append(server.publish("a", "x"))
            time.sleep(0.01)
            assert len(sent) < 3000
        client.wait_for(lambda one: not one.missing(sent))
    assert client.ids == sent
    assert set(client.endings) <= {Ending.TERMINATED, Ending.OPEN}


def refused(server: Server, reason: str) -> int:
    return int(samples(server).get(f'sse_streams_refused_total{{reason="{reason}"}}', 0))


def is_stream(client: SSEClient) -> bool:
    """Return whether the stream was let in: a refusal has a Content-Length."""
    return client.status == 200 and "content-length" not in client.headers


def check_refused(client: SSEClient, retry: int) -> None:
    """Check for 200, an opening with a random ``retry:`` and a cursor (so that nothing is missed), and a clean end."""
    blocks = client.read_to_end(2)
    assert (client.status, client.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    assert client.ending.clean and client.wait_closed(2).clean
    assert not is_stream(client) and [block.is_opening for block in blocks] == [True] and blocks[0].id
    assert abs(int(blocks[0].data or "") / 1000 - time.time()) < 60
    assert blocks[0].retry and retry * 0.5 <= blocks[0].retry <= retry * 1.5


def test_a_stream_beyond_the_limit_is_told_to_come_back_and_the_others_stay(
    start_server: StartServer, open_stream: OpenStream
) -> None:
    server = start_server(SSE_MAX_STREAMS=10, SSE_RETRY=2000)
    kept = [open_stream(server, "/events/a") for _ in range(10)]
    assert all(is_stream(client) for client in kept)
    for _ in range(3):
        check_refused(open_stream(server, "/events/a"), 2000)
    assert refused(server, "streams") == 3
    server.publish("a", "for all")
    for client in kept:
        assert client.next_message().data == "for all"
    assert server.request("GET", "/readyz").status == 200  # being full is no reason to be taken out
    kept.pop().close()  # its place is free at once
    eventually(lambda: samples(server)['sse_streams{state="live"}'] == 9, 1)
    assert is_stream(open_stream(server, "/events/a"))


def test_a_client_that_is_sent_away_keeps_its_cursor_or_gets_one(
    start_server: StartServer, open_stream: OpenStream
) -> None:
    """Each client resumes from the id that it was sent, as a browser does, and misses nothing."""
    server = start_server(SSE_MAX_STREAMS=1)
    first = server.publish("a", "first")
    kept = open_stream(server, "/events/other")
    cursor = "1763900000000-7"
    asked: list[tuple[str, str | None, str | None]] = [
        ("", None, first),                              # none: it is given the log's newest position
        ("", cursor, cursor),
        ("?since=1763900000000", cursor, cursor),       # the header wins, as for a stream that is let in
        (f"?lastEventId={cursor}", None, cursor),
        ("?since=1763900000000", None, "1763899999999-1048575"),
        ("?since=earliest", None, "0-0"),
        ("", "nonsense", None),                         # it is still to be told that this is no cursor
    ]
    for query, header, told in asked:
        away = open_stream(server, f"/events/a{query}", last_event_id=header)
        (block,) = away.read_to_end(2)
        assert block.is_opening and block.id == told, (query, header)
    missed = server.publish("a", "missed")
    kept.close()
    eventually(lambda: samples(server)['sse_streams{state="live"}'] == 0, 2)
    again = open_stream(server, "/events/a", last_event_id=first)
    assert again.next_event().id == first and again.next_message().id == missed


def test_one_address_has_a_limit_of_its_own(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_MAX_STREAMS_PER_IP=3, SSE_TRUSTED_PROXIES="127.0.0.1")
    far = {"X-Forwarded-For": "192.0.2.7"}
    for headers in ({}, far):
        kept = [open_stream(server, "/events/a", headers=headers) for _ in range(3)]
        assert all(is_stream(client) for client in kept)
        check_refused(open_stream(server, "/events/a", headers=headers), 2000)
        kept.pop().close()

        def is_let_in(headers: dict[str, str] = headers) -> bool:
            return is_stream(open_stream(server, "/events/a", headers=headers))

        eventually(is_let_in, 1)
    assert refused(server, "streams-per-ip") >= 2
