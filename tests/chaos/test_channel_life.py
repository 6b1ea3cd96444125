"""Erasing, closing and taking access back while one of two instances is cut off from Redis.

The instance serves meanwhile what it knows. Once Redis answers it again, it learns what has passed, and so does a new
instance.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.fleet import KEY, Fleet
from tests.live.observe import closed, streams
from tests.live.test_slow_readers import SMALL
from tests.sse.auth.fakes import SECRET, claims, hs256
from tests.support.resuming_client import ResumingClient
from tests.support.server import Answer, Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

MANAGER = {"Authorization": f"Bearer {KEY}"}
#: Seconds from Redis's return until an instance has learnt what has passed. A wide bound: this machine may be busy.
LEARNT_WITHIN = 5.0


@pytest.fixture(scope="module")
def tokens_fleet() -> Iterator[Fleet]:
    """Two instances that ask for tokens. The first is the one that gets cut off."""
    with Fleet(2, SSE_JWT_KEY=SECRET, SSE_WRITE_TIMEOUT=0) as fleet:
        yield fleet


def bearer(sub: str, issued: float | None = None) -> dict[str, str]:
    """Return the header of a token for every channel. issued: Unix seconds; a minute ago if omitted."""
    issued = time.time() - 60 if issued is None else issued
    return {"Authorization": f"Bearer {hs256(claims(subscribe=['*'], sub=sub, iat=int(issued)))}"}


READER = bearer("reader")


def manage(server: Server, method: str, target: str, status: int, body: str | None = None) -> Answer:
    """Send a request with the publish key; check the answer's status."""
    answer = server.request(method, target, body, headers=MANAGER, timeout=15)
    assert answer.status == status, f"{method} {target}: {answer.status} {answer.body!r}"
    return answer


def publish(server: Server, channel: str, data: str) -> str:
    return str(manage(server, "POST", f"/events/{channel}", 201, data).json()["id"])


@contextlib.contextmanager
def cut_off(fleet: Fleet) -> Iterator[None]:
    """Cut the first instance off from Redis. Leave once it has noticed, and then let Redis answer again."""
    server = fleet.servers[0]
    (noticed, back) = ("the log cannot be followed", "the log is followed again")
    before, returned = server.log_text().count(noticed), server.log_text().count(back)
    fleet.networks[0].silence()
    try:
        yield
        eventually(lambda: server.log_text().count(noticed) > before, 10, "it never noticed")
        assert server.log_text().count(back) == returned, "it was not cut off"
    finally:
        fleet.networks[0].speak()


def restart_suddenly(server: Server) -> None:
    """Replace the instance by a new one, which knows nothing but what the log says."""
    server.kill()
    server.start()


# ── erase ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_erased_while_an_instance_was_cut_off_is_not_served_by_it_afterwards(
    tokens_fleet: Fleet, stack: ExitStack
) -> None:
    away, well = tokens_fleet.servers
    before = publish(well, "beside", "kept")
    live = stack.enter_context(SSEClient(away.port, f"/events/person?since={before}", headers=READER))
    pattern = stack.enter_context(SSEClient(away.port, f"/events/per*?since={before}", headers=READER))
    line = json.dumps({"channel": "person", "data": "secret " + "x" * 10_000}) + "\n"
    many = well.request("POST", "/events", line * 500, {**MANAGER, "Content-Type": "application/x-ndjson"}, timeout=15)
    assert many.status == 201, many.body
    last = publish(well, "person", "secret, the last")
    for client in (live, pattern):
        client.events_until(lambda block: block.data == "secret, the last", 10)
    taken = [len(client.body) for client in (live, pattern)]
    # One that reads nothing: 5 MB of the channel wait for it in the instance.
    slow = stack.enter_context(
        SSEClient(away.port, "/events/person?since=earliest", headers=READER, receive_buffer=SMALL)
    )
    eventually(lambda: streams(away, "lagging") + streams(away, "replaying") >= 1, 5, lambda: f"{streams(away)}")
    with cut_off(tokens_fleet):
        assert manage(well, "DELETE", "/events/person", 200).json()["erased"] == 501
        publish(well, "person", "new")
    for client, begin in zip((live, pattern), taken, strict=True):
        blocks = client.events_until(lambda block: block.data == "new", LEARNT_WITHIN)
        (reset,) = [block for block in blocks if block.event == "stream-reset"]
        assert json.loads(reset.data or "")["reason"] == "erased"
        assert b"secret" not in client.body[begin:]
    # What the kernel had taken is gone from the instance; the rest is not sent.
    got = slow.read_to_end(10)
    assert slow.ending in (Ending.CUT, Ending.RESET)
    assert "secret, the last" not in [block.data for block in got] and b"secret, the last" not in slow.body
    for round_ in ("the instance itself", "a new instance"):
        for query in ("since=earliest", f"since={before}", f"since={last}", f"since={slow.last_event_id}", "since=1-1"):
            body = history(away, query)
            assert b"secret" not in body and b"new" in body, f"{round_}, {query}"
            for target in (f"/events/person?{query}", f"/events/per*?{query}", f"/events/*?envelope=1&{query}"):
                with SSEClient(away.port, target, headers=READER) as client:
                    client.events_until(lambda block: "new" in (block.data or "").split('"'), 5)
                    assert b"secret" not in client.body, f"{round_}, {target}"
        for cursor in (before, last, slow.last_event_id):
            with SSEClient(away.port, "/events/person", last_event_id=cursor, headers=READER) as client:
                blocks = client.events_until(lambda block: block.data == "new", 5)
                assert [block.event for block in blocks if block.event != "heartbeat"] == ["stream-reset", None]
                assert b"secret" not in client.body
        if round_ == "the instance itself":
            restart_suddenly(away)


def history(server: Server, query: str) -> bytes:
    """Return all of the channel "person" as JSON pages."""
    pages, target = b"", f"/events/person?{query}"
    while True:
        answer = server.request("GET", target, headers={**READER, "Accept": "application/json"})
        assert answer.status == 200, answer.body
        pages += answer.body
        if not answer.json()["events"]:
            return pages
        target = f"/events/person?since={answer.json()['next']}"


# ── close ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_streams_of_a_channel_that_was_closed_while_an_instance_was_cut_off_end_on_its_return(
    tokens_fleet: Fleet, stack: ExitStack
) -> None:
    away, well = tokens_fleet.servers

    def reader(target: str) -> ResumingClient:
        client = stack.enter_context(ResumingClient(away.port, target, headers=READER, retry=100))
        client.wait_connected()
        return client

    readers = [reader("/events/report"), reader("/events?channel=report&channel=summary"), reader("/events/report")]
    going_on = [reader("/events/repor*"), reader("/events?channel=report&channel=beside")]
    publish(well, "report", "1")
    for client in (*readers, *going_on):
        client.wait_for(lambda one: one.ledger)
    with cut_off(tokens_fleet):
        publish(well, "report", "2")
        manage(well, "POST", "/events/report?close=1", 201, "3")
        manage(well, "POST", "/events/summary?close=1", 201)
        # The instance cannot know yet. This one has missed "1", and nothing else will ever be sent to it.
        late = stack.enter_context(ResumingClient(away.port, "/events/report", headers=READER, retry=100))
        late.wait_connected()
        eventually(lambda: streams(away) == 6, 5)
    for client in (*readers, late):
        client.wait_for(lambda one: one.is_over, LEARNT_WITHIN)
        assert client.failed is None
        assert client.endings[0] is Ending.TERMINATED and client.connections == 1
        assert [block.event for block in client.control if block.event != "heartbeat"].count("stream-end") >= 1
        assert not client.resets
    for client in readers:
        assert [entry.data for entry in client.ledger] == ["1", "2", "3"]
    publish(away, "beside", "still here")
    manage(well, "POST", "/events/report", 409, "4")
    manage(away, "POST", "/events/report", 409, "4")
    going_on[1].wait_for(lambda one: [entry.data for entry in one.ledger] == ["1", "2", "3", "still here"])
    assert [client.connections for client in going_on] == [1, 1]
    restart_suddenly(away)
    assert away.request("GET", "/events/report", headers=READER).status == 204
    manage(away, "POST", "/events/report", 409, "4")


# ── revoke ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_subject_that_was_revoked_while_an_instance_was_cut_off_loses_its_streams_and_tokens_there(
    tokens_fleet: Fleet, stack: ExitStack
) -> None:
    away, well = tokens_fleet.servers
    old, others = bearer("alice"), bearer("bob")

    def opened(headers: dict[str, str], target: str = "/events/a") -> SSEClient:
        client = stack.enter_context(SSEClient(away.port, target, headers=headers))
        assert client.status == 200
        client.next_event()
        return client

    def status(headers: dict[str, str]) -> int:
        return away.request("HEAD", "/events/a", headers=headers).status

    mine = [opened(old), opened(old, "/events/*"), opened(old, "/events?channel=a&channel=b")]
    bobs = opened(others)
    before = closed(away).get("revoked", 0)
    with cut_off(tokens_fleet):
        manage(well, "DELETE", "/streams?subject=alice", 202)
        mine.append(opened(old))  # the instance cannot know yet
    for client in mine:
        client.read_to_end(LEARNT_WITHIN)
        assert client.ending is Ending.TERMINATED
    eventually(lambda: closed(away).get("revoked") == before + len(mine), 5, lambda: f"{closed(away)}")
    assert status(old) == 401
    assert status(bearer("alice", time.time() + 2)) == status(others) == 200
    publish(well, "a", "still here")
    assert bobs.next_message().data == "still here"
    restart_suddenly(away)
    assert status(old) == 401
    assert status(bearer("alice", time.time() + 2)) == status(others) == 200
