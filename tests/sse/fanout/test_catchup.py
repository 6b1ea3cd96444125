"""Streams that were taken over end cleanly where they are if the log no longer has what follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sse.events.model import format_id
from sse.streams.stream import State
from tests.sse.worker_parts import SocketClient, Stepped

BIG = "." * 400  # three of these are more than the window holds


class Taken(Stepped):
    """Streams that fall behind: the window, the log and each socket hold little."""

    def __init__(self, closing: ExitStack) -> None:
        super().__init__(closing, SSE_WINDOW_BYTES=1024, SSE_RETAIN_EVENTS=10)

    def append_big(self, count: int) -> list[int]:
        """Append big events; a small socket holds two."""
        return self.append(*[f"{n}{BIG}" for n in range(count)])

    def open_small(self, cursor: int) -> SocketClient:
        return self.open(cursor, send_buffer=1)

    def read_to_end(self, client: SocketClient) -> list[int]:
        """Read to the end, which must be clean with a ``retry:``; return the positions of all events."""
        deadline = time.monotonic() + 5
        while not client.finished:
            assert time.monotonic() < deadline, (client.stream.state, client.blocks)
            client.read(100_000)
            self.poll()
        assert client.decoder.terminated
        assert client.blocks[-1].retry is not None
        client.sock.close()
        self.fanout.upkeep._time_out(time.monotonic() + 60)  # the stream lingers
        return [int((block.id or "").partition("-")[0]) for block in client.blocks if block.data]


@pytest.fixture
def taken() -> Iterator[Taken]:
    with ExitStack() as stack:
        yield Taken(stack)


def test_a_stream_that_retention_overtakes_while_it_catches_up_ends_cleanly(taken: Taken) -> None:
    first, *_ = taken.append_big(8)
    client = taken.open_small(first)
    assert client.stream.backlog is not None and client.stream.backlog.reading
    taken.append_big(20)
    taken.parts.log.trim_all()
    taken.fanout.catchup.read_log()
    assert taken.read_to_end(client) == []
    assert taken.parts.ended == [("fell-behind", 0)]


def test_a_stream_that_lags_when_its_log_is_replaced_ends_after_the_rest_of_its_chunk(taken: Taken) -> None:
    taken.append_big(1)
    client = taken.open_small(taken.hub.window.position)
    assert client.stream.state is State.LIVE
    positions = taken.append_big(12)
    taken.fanout.passes.run()
    assert client.stream.state is State.LAGGING
    taken.fanout.catchup.let_all_go()
    assert taken.read_to_end(client) == [int(format_id(position).partition("-")[0]) for position in positions]
    assert taken.parts.ended == [("replaced", 12)]


def test_a_page_read_for_a_stream_that_has_ended_meanwhile_is_not_sent(taken: Taken) -> None:
    first, *_ = taken.append_big(8)
    client = taken.open_small(first)
    taken.parts.log.on_read = lambda *_: taken.fanout.catchup.let_all_go()
    taken.fanout.catchup.read_log()
    assert taken.read_to_end(client) == []
    assert taken.parts.ended == [("replaced", 0)]


def test_a_stream_whose_closing_bytes_are_made_does_not_change_its_close_reason(taken: Taken) -> None:
    taken.append_big(1)
    client = taken.open_small(taken.hub.window.position)
    taken.append_big(12)
    taken.fanout.passes.run()
    taken.fanout.catchup.end(client.stream, "lease")
    while client.stream.backlog is not None and not client.stream.backlog.final:
        client.read(2000)
        taken.fanout.catchup.advance(client.stream)
    taken.fanout.catchup.let_all_go()
    assert len(taken.read_to_end(client)) == 12
    assert taken.parts.ended == [("lease", 12)]
