"""Bugs in the fan-out: no stream goes on with a gap, each is accounted for, and the others are served."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from typing import Any

import pytest

from sse.events.model import parse_id
from sse.fanout import epoll, passes
from sse.streams.stream import State
from tests.sse.worker_parts import SocketClient, Stepped


class Bug(Exception):
    """An exception that no code expects."""


def failing(*_: Any, **__: Any) -> Any:
    raise Bug


@pytest.fixture
def site(closing: ExitStack) -> Stepped:
    return Stepped(closing, SSE_WINDOW_BYTES=1024, SSE_WRITE_TIMEOUT=5)


def live(site: Stepped, count: int) -> list[SocketClient]:
    clients = [site.open(site.hub.window.position) for _ in range(count)]
    assert all(client.stream.state is State.LIVE for client in clients)
    return clients


def data(client: SocketClient) -> list[str]:
    while client.read(100_000):
        pass
    return [block.data or "" for block in client.blocks if not block.is_control]


def test_streams_that_a_failed_pass_did_not_reach_end_cleanly_before_its_chunk(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = site.append("before")[-1]
    clients = live(site, 6)
    monkeypatch.setattr(passes, "PASS_SLICE", -1.0)
    monkeypatch.setattr(passes, "CLOCK_EVERY", 1)
    breaths = iter([None, None, Bug()])  # raised after the write to the third stream

    def breathe() -> None:
        if (error := next(breaths, None)) is not None:
            raise error

    monkeypatch.setattr(passes, "breathe", breathe)
    site.append("during")
    site.fanout.passes.run()
    reached, doubtful, missed = clients[:2], clients[2], clients[3:]
    for client in reached:
        assert client.stream.state is State.LIVE and data(client) == ["during"]
    # Nobody knows what it was sent, so it is cut; its client resumes after its last id.
    data(doubtful)
    assert doubtful.finished and not doubtful.decoder.terminated
    for client in missed:
        assert client.stream.state is State.LINGERING
        assert data(client) == []
        assert client.decoder.terminated and client.blocks[-1].retry is not None
        assert all(parse_id(block.id) <= before for block in client.blocks if block.id)
        client.sock.close()
    site.append("after")
    site.fanout.passes.run()
    site.poll()
    assert [data(client) for client in reached] == [["during", "after"]] * 2
    assert sorted(site.parts.ended) == [("error", 0)] * 3 + [("error", 1)]  # the doubtful one did get the event
    assert site.hub.admission.streams == site.fanout.busy() == 2


def test_joins_and_ends_that_waited_for_a_failed_pass_still_happen(site: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    (client,) = live(site, 1)
    taken: list[str] = []
    client.stream.group.deferred += [failing, lambda: taken.append("turn")]
    monkeypatch.setattr(site.fanout.passes, "_write_all", failing)
    site.append("x")
    site.fanout.passes.run()
    assert taken == ["turn"] and not client.stream.group.passing


def test_a_socket_that_cannot_be_watched_is_closed_and_not_counted(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """epoll: fs.epoll.max_user_watches is reached."""

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(site.fanout.sockets.poller, "add", full)
    client = site.open(site.hub.window.position)
    client.read(100)
    assert client.finished, "its descriptor is still open"
    assert client.stream.state is State.CLOSED
    assert site.parts.ended == [("error", 0)]
    assert site.fanout.busy() == site.hub.admission.streams == 0
    assert site.fanout.sockets.clients() == [] and not site.hub.groups


def test_a_bug_in_reading_a_page_cuts_that_stream_and_the_next_is_served(site: Stepped) -> None:
    first, *_ = site.append(*["x" * 400] * 8)  # more than the window holds
    clients = [site.open(first) for _ in range(2)]
    answers = iter([failing, lambda *_: None])
    site.parts.log.on_read = lambda *asked: next(answers)(*asked)
    for client in clients:
        assert client.stream.backlog is not None and client.stream.backlog.reading
        site.fanout.catchup.read_log()
    assert [data(client) for client in clients] == [[], ["x" * 400] * 7]
    assert clients[0].finished
    assert site.parts.ended == [("error", 0)]


def test_a_bug_in_making_a_stream_live_cuts_it(site: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.fanout.catchup, "_make_live", failing)
    client = site.open(site.hub.window.position)
    client.read(100)
    assert client.finished and site.parts.ended == [("error", 0)]


def test_a_bug_in_ending_a_stream_cuts_it_and_the_drain_goes_on(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = live(site, 4)
    leave = site.fanout.sockets.leave_live
    poison = clients[1].stream

    def leave_live(stream: Any, *args: Any) -> None:
        if stream is poison:
            raise Bug
        leave(stream, *args)

    monkeypatch.setattr(site.fanout.sockets, "leave_live", leave_live)
    site.fanout.drain(0.0)
    assert [client.stream.state for client in clients] == [
        State.LINGERING,
        State.CLOSED,
        State.LINGERING,
        State.LINGERING,
    ]


def test_a_bug_on_one_socket_does_not_keep_the_others_from_being_handled(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = live(site, 3)
    on_socket = site.fanout.on_socket
    poison = clients[0].stream

    def picky(stream: Any, mask: int) -> None:
        if stream is poison:
            raise Bug
        on_socket(stream, mask)

    monkeypatch.setattr(site.fanout, "on_socket", picky)
    for client in clients:
        client.sock.close()
    site.poll()
    assert sorted(reason for reason, _ in site.parts.ended) == ["client", "client", "error"]
    assert site.fanout.busy() == 0


def test_each_duty_of_upkeep_works_while_another_fails(site: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = live(site, 2)
    site.fanout.catchup.end(clients[0].stream, "lease")
    assert clients[0].stream.state is State.LINGERING
    monkeypatch.setattr(site.fanout.upkeep, "sweep", lambda *_: failing())
    monkeypatch.setattr(epoll, "unacknowledged", failing)
    site.fanout.drain(1.0)
    site.fanout.upkeep.turn(time.monotonic() + 2, 0.05)
    assert clients[0].stream.state is State.CLOSED
    assert clients[1].stream.state in (State.ENDING, State.LINGERING)


def test_a_bug_in_one_write_timeout_cuts_its_stream_and_the_others_still_time_out(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = live(site, 3)
    for client in clients:
        site.fanout.catchup.end(client.stream, "lease")
    close = site.fanout.sockets.close
    poison = clients[1].stream

    def picky(stream: Any, reason: str) -> None:
        if stream is poison and reason != "error":
            raise Bug
        close(stream, reason)

    monkeypatch.setattr(site.fanout.sockets, "close", picky)
    site.fanout.upkeep.turn(time.monotonic() + 10, 0.05)
    assert [client.stream.state for client in clients] == [State.CLOSED] * 3


def test_a_stream_whose_end_cannot_be_logged_is_still_closed(site: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = live(site, 2)
    monkeypatch.setattr(site.hub, "_on_close", failing)
    for client in clients:
        client.sock.close()
    site.poll()
    assert site.fanout.busy() == site.hub.admission.streams == 0
