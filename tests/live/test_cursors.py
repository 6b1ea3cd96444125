"""Cursors over a stream's whole life: openings and heartbeats that resume exactly, and every kind of stream-reset."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.sse_parser import StreamEvent
from tests.support.wait import eventually


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    """Two workers that send heartbeats every 300 ms."""
    with Server(WEB_CONCURRENCY=2, SSE_HEARTBEAT=0.3) as server:
        yield server


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server that keeps 20 events, replays 10, and has a window of about three."""
    limits: dict[str, Any] = {"SSE_RETAIN_EVENTS": 20, "SSE_REPLAY_LIMIT": 10, "SSE_WINDOW_BYTES": 1024}
    with Server(SSE_HEARTBEAT=0.3, **limits) as server:
        yield server


def beat(event: StreamEvent) -> bool:
    return event.is_heartbeat


def beat_at(name: str) -> Callable[[StreamEvent], bool]:
    return lambda event: beat(event) and event.id == name


def reset_of(server: Server, target: str, cursor: str | None) -> tuple[dict[str, Any] | None, str]:
    """What a stream with this cursor says of it, and the id of its opening. The server's heartbeats must be quick: what
    follows the opening is a reset or not."""
    with SSEClient(server.port, target, last_event_id=cursor) as client:
        opening, following = client.next_event(), client.next_event()
        told = json.loads(following.data or "") if following.event == "stream-reset" else None
        if told is not None:
            assert following.id == opening.id
        return told, opening.id or ""


# ── positions that resume exactly ─────────────────────────────────────────────────────────────────────────────


def test_heartbeats_come_in_silence_and_say_when_they_were_made(quick: Server) -> None:
    with SSEClient(quick.port, "/events/silence") as client:
        opening = client.next_event()
        before = time.time() * 1000
        assert opening.is_opening and before - 5000 < int(opening.data or "") <= before + 100
        beats = [client.events_until(beat, 5)[-1] for _ in range(4)]
        made = [int(one.data or "") for one in beats]
        gaps = [b - a for a, b in zip(made, made[1:], strict=False)]
        assert all(50 < gap < 1500 for gap in gaps), gaps
        assert before - 100 < made[0] < made[-1] <= time.time() * 1000 + 100


@pytest.mark.parametrize("stage", ["opening", "heartbeat"])
def test_a_client_that_has_seen_no_event_yet_loses_nothing_across_a_reconnect(quick: Server, stage: str) -> None:
    channel = f"unseen-{stage}"
    with SSEClient(quick.port, f"/events/{channel}") as client:
        if stage == "opening":
            client.next_event()
        else:
            client.events_until(beat, 5)
    ids = [quick.publish(channel, str(n)) for n in range(3)]
    with SSEClient(quick.port, f"/events/{channel}", last_event_id=client.last_event_id) as again:
        assert [again.next_message().id for _ in ids] == ids


def test_a_quiet_channel_s_cursor_moves_with_the_log_and_loses_nothing(quick: Server) -> None:
    with SSEClient(quick.port, "/events/hush") as client:
        for n in range(3):
            client.events_until(beat_at(quick.publish("noise", str(n))), 5)
    missed = quick.publish("hush", "missed")
    with SSEClient(quick.port, "/events/hush", last_event_id=client.last_event_id) as again:
        assert again.next_message().id == missed
    with SSEClient(quick.port, "/events/hush", last_event_id=missed) as last:
        assert beat(last.events_until(lambda event: not event.retry, 5)[-1]), "and nothing comes twice"


def test_a_filter_for_a_rare_type_resumes_exactly_from_its_heartbeats(quick: Server) -> None:
    target = "/events/rare?event=alarm"
    with SSEClient(quick.port, target) as client:
        common = [quick.publish("rare", "x", "?event=usual") for _ in range(5)][-1]
        client.events_until(lambda event: beat(event) and event.id == common, 5)
    alarm = quick.publish("rare", "!", "?event=alarm")
    with SSEClient(quick.port, target, last_event_id=client.last_event_id) as again:
        assert again.next_message().id == alarm


def test_heartbeats_of_many_streams_are_spread_and_not_sent_in_one_burst() -> None:
    with Server(SSE_HEARTBEAT=2) as server, ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(server.port, "/events/many")) for _ in range(60)]
        made = sorted(int(client.events_until(beat, 10)[-1].data or "") for client in clients)
        assert made[-1] - made[0] > 100, "all in one burst"


@pytest.mark.parametrize("name", ["Last-Event-ID", "lastEventId", "last_event_id", "since"])
def test_a_cursor_may_be_in_the_header_or_in_the_query(quick: Server, name: str) -> None:
    ids = [quick.publish(f"by-{name}", str(n)) for n in range(3)]
    header = ids[0] if name == "Last-Event-ID" else None
    query = "" if header else f"?{name}={ids[0]}"
    with SSEClient(quick.port, f"/events/by-{name}{query}", last_event_id=header) as client:
        assert [client.next_message().id for _ in ids[1:]] == ids[1:]


def test_the_header_wins_over_the_query_because_a_reconnect_still_has_the_old_query(quick: Server) -> None:
    ids = [quick.publish("wins", str(n)) for n in range(3)]
    with SSEClient(quick.port, "/events/wins?since=earliest", last_event_id=ids[1]) as client:
        assert client.next_message().id == ids[2]


# ── stream-reset ──────────────────────────────────────────────────────────────────────────────────────────────


def trimmed(server: Server, channel: str) -> list[str]:
    """Publish more than is kept, wait until only the newest 20 are left, and return all ids."""
    ids = [server.publish(channel, str(n)) for n in range(60)]

    def kept() -> bool:
        told, _ = reset_of(server, f"/events/{channel}", "1-1")
        assert told is not None
        return tuple(map(int, told["oldest"].split("-"))) > tuple(map(int, ids[30].split("-")))

    eventually(kept, 10, "the log is not trimmed")
    return ids


def test_a_reset_names_its_reason_and_the_retained_events_follow(small: Server) -> None:
    ids = trimmed(small, "resets")
    future = f"{int(time.time() * 1000) + 3_600_000}-0"
    for cursor, reason in ((ids[0], "expired"), ("0-1", "expired"), ("nonsense", "malformed"), (future, "unknown")):
        told, _ = reset_of(small, "/events/resets", cursor)
        assert told is not None and told["reason"] == reason and told["requested"] == cursor
        assert set(told) == {"reason", "requested", "oldest", "latest"}
    # More than SSE_REPLAY_LIMIT follow: the newest that many, in order, and live from there.
    more = [small.publish("far", str(n)) for n in range(15)]
    with SSEClient(small.port, "/events/far", last_event_id=more[0]) as client:
        opening, reset = client.next_event(), client.next_event()
        assert json.loads(reset.data or "")["reason"] == "too-far"
        assert opening.id == reset.id == more[4]
        assert [client.next_event().id for _ in range(10)] == more[5:]
        small.publish("far", "live")
        assert client.next_message().data == "live"


def test_after_a_reset_the_next_reconnect_is_an_ordinary_resume(small: Server) -> None:
    ids = trimmed(small, "again")
    with SSEClient(small.port, "/events/again", last_event_id=ids[0]) as client:
        client.events_until(lambda event: event.event == "stream-reset", 5)
        last = client.events_until(lambda event: event.id == ids[-1], 5)[-1].id
    told, _ = reset_of(small, "/events/again", last)
    assert told is None


def test_a_quiet_stream_gets_no_false_reset_however_much_was_trimmed_meanwhile(small: Server) -> None:
    """Each heartbeat moves the cursor to the log's end, so the cursor does not grow old."""
    with SSEClient(small.port, "/events/quiet-one") as client:
        begin = client.next_event().id
        last = trimmed(small, "flood")[-1]
        client.events_until(lambda event: beat(event) and event.id != begin, 5)
        newest = small.publish("flood", "x")
        client.events_until(lambda event: beat(event) and event.id == newest, 5)
        assert client.last_event_id not in (begin, last)
    small.publish("quiet-one", "missed")
    with SSEClient(small.port, "/events/quiet-one", last_event_id=client.last_event_id) as again:
        assert again.next_event().retry
        assert again.next_event().data == "missed", "no stream-reset between"
    told, _ = reset_of(small, "/events/quiet-one", begin)
    assert told is None, "an old cursor has missed nothing either: what was trimmed is another channel's"
    told, _ = reset_of(small, "/events?channel=quiet-one&channel=flood", begin)
    assert told is not None and told["reason"] == "expired"


def test_a_cursor_outlives_a_restart_of_an_idle_server_and_the_time_of_retention() -> None:
    with Server(SSE_RETAIN_SECONDS=1, SSE_HEARTBEAT=0.2, SSE_DRAIN_DELAY=0) as server:
        newest = server.publish("a", "1")
        with SSEClient(server.port, "/events/a") as client:
            client.events_until(beat, 5)
        eventually(lambda: not (reset_of(server, "/events/a", "1-1")[0] or {})["oldest"], 10, "it is not trimmed")
        assert client.last_event_id == newest
        server.restart()
        told, opening = reset_of(server, "/events/a", client.last_event_id)
        assert told is None and opening == client.last_event_id
