"""Upkeep: heartbeats, time-outs and the drain, at given times instead of after waiting."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

import pytest

from sse.events.model import Event, format_id
from sse.fanout import catchup, epoll
from sse.streams.stream import OWN_CLIENT, State
from tests.sse.worker_parts import SocketClient, Stepped

BIG = "." * 400  # three of these are more than the window holds


@pytest.fixture
def site(closing: ExitStack) -> Stepped:
    return Stepped(closing, SSE_WINDOW_BYTES=1024, SSE_WRITE_TIMEOUT=1, SSE_MAX_STREAM_AGE=0)


def now_open(site: Stepped, **options: object) -> SocketClient:
    client = site.open(site.hub.window.position, **options)  # type: ignore[arg-type]
    assert client.stream.state is State.LIVE
    return client


def test_the_workers_own_streams_do_not_count_as_busy(site: Stepped) -> None:
    own, theirs = now_open(site, client=OWN_CLIENT), now_open(site)
    sockets, fanout = site.fanout.sockets, site.fanout
    assert (sockets.count, fanout.busy()) == (2, 1)
    sockets.close(own.stream, "client")
    assert (sockets.count, fanout.busy()) == (1, 1)
    again = now_open(site, client=OWN_CLIENT)
    sockets.close(theirs.stream, "client")
    assert (sockets.count, fanout.busy()) == (1, 0)
    sockets.close(again.stream, "client")
    assert (sockets.count, fanout.busy()) == (0, 0)
    assert not sockets.counts() and set(sockets.streams) == {None}


def test_the_workers_own_streams_are_not_drained(site: Stepped) -> None:
    own, theirs = now_open(site, client=OWN_CLIENT), now_open(site)
    site.fanout.drain(0.0)
    assert (own.stream.state, theirs.stream.state) == (State.LIVE, State.LINGERING)
    late = now_open_anyway(site, OWN_CLIENT)
    site.fanout.upkeep.turn(time.monotonic() + 10, 0.05)
    assert late.stream.state is State.LIVE


def now_open_anyway(site: Stepped, client: str = "-") -> SocketClient:
    """Open a stream whose request was under way when the drain began."""
    return site.open(site.hub.window.position, client=client)


def test_a_stream_that_joins_during_the_drain_is_ended_in_its_window(site: Stepped) -> None:
    window = 10.0
    streams = [now_open(site).stream for _ in range(4)]
    began = time.monotonic()
    site.fanout.drain(window)
    streams += [now_open_anyway(site).stream for _ in range(2)]
    site.fanout.upkeep.turn(began + window * 0.6, 0.05)
    ended = [stream for stream in streams if stream.state is State.LINGERING]
    assert len(ended) == 4 and set(streams[4:]) <= set(ended), "two of four, and both that came late"
    streams.append(now_open_anyway(site).stream)
    site.fanout.upkeep.turn(began + window + 0.1, 0.05)
    assert {stream.state for stream in streams} <= {State.LINGERING, State.CLOSED}


def test_a_stream_that_joins_a_drain_of_nothing_is_ended(site: Stepped) -> None:
    site.fanout.drain(10.0)
    late = now_open_anyway(site).stream
    site.fanout.upkeep.turn(time.monotonic() + 0.05, 0.05)
    assert late.state is State.LINGERING


def test_a_hurried_drain_ends_what_is_left(site: Stepped) -> None:
    streams = [now_open(site).stream for _ in range(4)]
    site.fanout.drain(60.0)
    assert State.LINGERING not in {stream.state for stream in streams}
    site.fanout.drain(0.0)
    assert {stream.state for stream in streams} == {State.LINGERING}


def lagging_behind_the_window(site: Stepped) -> SocketClient:
    """Open a stream that was live, lags, and waits for a page of the log."""
    site.append(BIG)
    client = now_open(site, send_buffer=1)
    site.append(*[BIG] * 12)
    site.fanout.passes.run()
    site.append(*[BIG] * 12)  # not part of the chunk whose rest it has
    assert client.stream.state is State.LAGGING
    deadline = time.monotonic() + 5
    while client.stream.backlog is not None and not client.stream.backlog.reading:
        assert time.monotonic() < deadline
        client.read(100_000)
        site.poll()
    return client


def test_a_stream_that_waits_for_the_log_is_not_timed_out_and_goes_on_once_the_log_is_back(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "LOG_PAUSE", 0.0)
    client = lagging_behind_the_window(site)
    site.parts.log.down = True
    for _ in range(3):
        site.fanout.catchup.read_log()
        site.fanout.upkeep.turn(time.monotonic() + 3600, 0.05)
    assert client.stream.state is State.LAGGING
    site.parts.log.down = False
    # From here on the write time-out runs again, but it does not count the outage.
    deadline = time.monotonic() + 5
    while client.stream.state is not State.LIVE:
        assert time.monotonic() < deadline
        if client.stream.backlog is not None and client.stream.backlog.reading:
            site.fanout.catchup.read_log()
        site.fanout.upkeep.turn(time.monotonic(), 0.05)
        client.read(100_000)
        site.poll()
    client.read(100_000)
    assert len([block for block in client.blocks if block.data]) == 24


def test_a_stream_that_must_end_while_it_waits_for_the_log_ends_once_the_log_is_back(site: Stepped) -> None:
    client = lagging_behind_the_window(site)
    site.fanout.catchup.end(client.stream, "lease")
    deadline = time.monotonic() + 5
    while not client.finished:
        assert time.monotonic() < deadline
        if client.stream.backlog is not None and client.stream.backlog.reading:
            site.fanout.catchup.read_log()
        client.read(100_000)
        site.poll()
    assert len([block for block in client.blocks if block.data]) == 24
    assert client.decoder.terminated


def fill(site: Stepped, client: SocketClient) -> int:
    """Publish small events, each in its own pass, until the socket takes nothing of one; return their number."""
    count = 0
    while client.stream.state is State.LIVE:
        site.append(f"{count}")
        site.fanout.passes.run()
        count += 1
        assert count < 5000
    assert client.stream.backlog is not None and not client.stream.backlog.rest, "it took a part of it"
    return count


def test_events_that_a_full_socket_did_not_take_are_not_counted_as_delivered(closing: ExitStack) -> None:
    site = Stepped(closing)
    client = now_open(site, send_buffer=1)
    brisk = now_open(site)
    count = fill(site, client)
    site.fanout.sockets.close(client.stream, "client")
    assert site.parts.ended == [("client", count - 1)]
    assert site.hub.stats.delivered == 2 * count - 1
    site.fanout.sockets.close(brisk.stream, "client")
    assert site.parts.ended[1:] == [("client", count)]


def test_each_event_of_a_stream_that_lagged_is_counted_once(closing: ExitStack) -> None:
    site = Stepped(closing)
    client = now_open(site, send_buffer=1)
    count = fill(site, client)
    deadline = time.monotonic() + 5
    while client.stream.state is not State.LIVE:
        assert time.monotonic() < deadline
        client.read(100_000)
        site.poll()
    site.append("one more")
    site.fanout.passes.run()
    client.read(100_000)
    events = [block for block in client.blocks if not block.is_control]
    assert len(events) == count + 1
    site.fanout.sockets.close(client.stream, "client")
    assert site.parts.ended == [("client", count + 1)]
    assert site.hub.stats.delivered == count + 1


def test_a_stream_that_waits_for_a_pass_joins_in_one_that_has_nothing_to_send(site: Stepped) -> None:
    """A stream that is ahead of its group waits for the next pass; then retention deletes the pending events."""
    site.append("before")
    on_time = now_open(site)
    early = site.open(site.append("pending")[-1])
    assert early.stream.state is State.REPLAYING
    trimmed = site.parts.log.append([Event("a", "trimmed away")])[-1]
    site.hub.overtaken(trimmed)
    assert on_time.stream.state is State.LINGERING
    site.fanout.passes.run()
    site.fanout.catchup.read_log()
    assert early.stream.state is State.LIVE
    site.append("after")
    site.fanout.passes.run()
    early.read(100_000)
    assert [block.data for block in early.blocks if not block.is_control] == ["trimmed away", "after"]


def test_a_byte_that_is_taken_is_progress_even_if_as_much_waits_again(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoll, "unacknowledged", lambda fd: 1000)
    site.append(BIG)
    client = now_open(site, send_buffer=1)
    site.append(*[BIG] * 40)
    site.fanout.passes.run()
    backlog = client.stream.backlog
    assert backlog is not None and backlog.rest
    backlog.progress_at -= 3600
    rest = len(backlog.rest)
    while len(backlog.rest) == rest:
        client.read(2000)
        site.poll()
    assert backlog.rest
    site.fanout.upkeep.turn(time.monotonic(), 0.05)
    assert client.stream.state is State.LAGGING
    backlog.progress_at -= 3600
    site.fanout.upkeep.turn(time.monotonic(), 0.05)
    assert site.parts.ended[0][0] == "write-timeout"


def nothing_taken(*_: object) -> int:
    raise BlockingIOError


def test_the_write_timeout_of_a_page_begins_when_the_page_is_read(site: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    client = lagging_behind_the_window(site)
    assert client.stream.backlog is not None
    client.stream.backlog.progress_at -= 3600
    with monkeypatch.context() as full:
        full.setattr(catchup.os, "write", nothing_taken)
        site.fanout.catchup.read_log()
    assert client.stream.backlog.rest
    site.fanout.upkeep.turn(time.monotonic(), 0.05)
    assert client.stream.state is State.LAGGING


@pytest.mark.parametrize("taken", [pytest.param(0, id="nothing"), pytest.param(5, id="a part")])
def test_a_heartbeat_that_a_socket_does_not_take_whole_makes_the_stream_lag(
    site: Stepped, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    position = site.append("before")[-1]
    client = now_open(site)
    write = os.write
    with monkeypatch.context() as short:
        short.setattr(os, "write", lambda fd, data: write(fd, data[:taken]) if taken else nothing_taken())
        site.fanout.upkeep.sweep(time.monotonic() + 3600, 10.0)
    assert client.stream.state is State.LAGGING
    site.append("after")
    site.poll()
    assert client.stream.state is State.LIVE
    client.read(100_000)
    heartbeats = [block for block in client.blocks if block.event == "heartbeat"]
    assert [block.id for block in heartbeats] == ([format_id(position)] if taken else [])
    assert [block.data for block in client.blocks if not block.is_control] == ["after"]


def test_a_live_stream_costs_nothing_between_events(closing: ExitStack) -> None:
    site = Stepped(closing)
    client = now_open(site, send_buffer=1)
    fill(site, client)
    sockets = site.fanout.sockets
    assert sockets.backlogged == {client.stream}
    while client.stream.state is not State.LIVE:
        client.read(100_000)
        site.poll()
    site.append("x")
    site.fanout.passes.run()
    client.read(100_000)
    assert not sockets.backlogged
    assert sockets.poller.poll() == [], "it is told of room that nobody waits for"


def test_a_fast_reader_with_much_to_catch_up_on_takes_turns(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "PAGE_BYTES", 1)  # one event
    site = Stepped(closing)
    first, *_ = site.append(*[str(number) for number in range(12)])
    client = site.open(first)
    got = []
    while client.stream.state is not State.LIVE:
        client.read(100_000)
        got.append(len(client.blocks))
        site.poll()
    assert got == [catchup.PAGES_PER_TURN, 2 * catchup.PAGES_PER_TURN]
    client.read(100_000)
    assert len(client.blocks) == 11


def test_events_that_a_closed_stream_did_not_get_are_not_counted(site: Stepped) -> None:
    client = now_open(site)
    client.sock.close()
    site.append("too late")
    site.fanout.passes.run()
    assert site.parts.ended == [("client", 0)]
    assert site.hub.stats.delivered == 0
