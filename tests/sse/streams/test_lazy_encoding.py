"""A worker encodes an event when a stream first asks for it, and keeps the record until then."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from sse.events import batch, wire
from sse.events.model import Event, Record, format_id
from sse.events.wire import Frame
from sse.fanout.passes import MAX_CHUNK_BYTES
from sse.streams import window as window_module
from sse.streams.group import Subscription
from sse.streams.stream import State
from sse.streams.window import Window
from tests.sse.worker_parts import Parts, SocketClient, Stepped, numbers
from tests.support.wait import eventually


@pytest.fixture
def site(closing: ExitStack) -> Stepped:
    return Stepped(closing)


def publish(site: Stepped, *channels: str) -> list[int]:
    positions = site.parts.log.append([Event(channel, f"{n}") for n, channel in enumerate(channels)])
    site.dispatch()
    return positions


def encoded(window: Window) -> list[str]:
    """Return the data of the events in the window that are encoded."""
    return [item.text() for item in window._items if isinstance(item, Frame) and item.position]


def read(client: SocketClient, events: int) -> list[str | None]:
    eventually(lambda: (client.read(10**6), len(client.blocks) >= events)[1], 5)
    return [block.data for block in client.blocks]


def test_what_nobody_listens_to_is_not_encoded(site: Stepped) -> None:
    site.hub.join(Subscription(frozenset({"mine", "b:*"})))
    publish(site, "mine", "other", "b:1", "bb", "mine")
    assert encoded(site.hub.window) == ["0", "2", "4"]


def test_a_replay_encodes_it_once_for_all_streams(site: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    start = site.hub.window.position
    publish(site, *["a", "b"] * 20)
    assert encoded(site.hub.window) == []
    made = list[Record]()

    def counted(record: Record) -> Frame:
        made.append(record)
        return wire.encode_frame(record)

    monkeypatch.setattr(window_module, "encode_frame", counted)
    for _ in range(3):
        assert read(site.open(start, site.hub.join(Subscription(frozenset({"a"})))), 20) == numbers(0, 40)[:40:2]
    assert len(made) == 20
    assert len(encoded(site.hub.window)) == 20


def test_other_types_are_not_encoded_by_a_replay(site: Stepped) -> None:
    start = site.hub.window.position
    site.parts.log.append([Event("a", "0", "x"), Event("a", "1", "y"), Event("a", "2")])
    site.dispatch()
    client = site.open(start, site.hub.join(Subscription(frozenset({"a"}), frozenset({"y"}))))
    assert read(client, 1) == ["1"]
    assert encoded(site.hub.window) == ["1"]


def test_a_stream_that_joins_between_two_batches_misses_nothing(site: Stepped) -> None:
    start = site.hub.window.position
    publish(site, "a", "b")
    client = site.open(start, site.hub.join(Subscription(frozenset({"a", "b"}))))
    publish(site, "a", "b")
    site.fanout.passes.wake()
    site.fanout.passes.run()
    assert read(client, 4) == ["0", "1", "0", "1"]
    assert client.stream.state is State.LIVE


def test_a_closed_channel_that_nobody_listened_to_is_known_to_be_closed(site: Stepped) -> None:
    position = site.parts.log.append([Event("a", "0")], close=["a"])[-1]
    site.dispatch()
    assert encoded(site.hub.window) == []
    assert site.hub.closed_channels(["a"]) == {"a": position}


def test_an_erased_channel_that_nobody_listened_to_is_gone(site: Stepped) -> None:
    start = site.hub.window.position
    publish(site, "a", "b", "a")
    through = site.parts.log.erase("a").through
    site.dispatch()
    page = site.hub.window.read({"a", "b"}, None, start, through, 10**9)
    assert [frame.text() for frame in page.frames[:-1]] == ["1"]
    assert page.frames[-1].event == "stream-reset"


def test_a_window_that_was_filled_from_the_log_is_not_encoded(closing: ExitStack, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    first = closing.enter_context(Parts(url))
    before = first.hub.window.position
    first.append(*numbers(1, 30))
    later = closing.enter_context(Parts(url))
    assert encoded(later.hub.window) == []
    stream = later.open(format_id(before))
    assert stream.read(30) == numbers(1, 30)
    assert later.log.reads == first.log.reads, "the window has answered"


def failing(record: Record) -> Frame:
    raise ZeroDivisionError(f"a bug: {record.data}")


def test_a_stream_whose_replay_cannot_be_encoded_is_cut_and_the_others_go_on(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = site.open(site.hub.window.position, site.hub.join(Subscription(frozenset({"b"}))))
    start = site.hub.window.position
    publish(site, "a")
    monkeypatch.setattr(window_module, "encode_frame", failing)
    broken = site.open(start, site.hub.join(Subscription(frozenset({"a"}))))
    eventually(lambda: (broken.read(100), broken.finished)[1], 5)
    assert broken.blocks == [], "not an event, and no clean end"
    assert [reason for reason, _ in site.parts.ended] == ["error"]
    publish(site, "b")
    site.fanout.passes.wake()
    site.fanout.passes.run()
    assert read(live, 1) == ["0"]


def test_a_live_event_that_cannot_be_encoded_is_not_passed_over(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = site.hub.window.position
    client = site.open(start, site.hub.join(Subscription(frozenset({"a"}))))
    monkeypatch.setattr(batch, "encode_frame", failing)
    site.parts.log.append([Event("a", "0")])
    with pytest.raises(ZeroDivisionError):
        site.dispatch()
    assert site.hub.window.position == start, "the tailer reads it again"
    monkeypatch.undo()
    site.dispatch()
    site.fanout.passes.wake()
    site.fanout.passes.run()
    assert read(client, 1) == ["0"]


def test_a_large_page_of_records_is_bounded(site: Stepped) -> None:
    start = site.hub.window.position
    site.parts.log.append([Event("a", "." * 10_000) for _ in range(40)])
    site.dispatch()
    page = site.hub.window.read({"a"}, None, start, site.hub.window.position, MAX_CHUNK_BYTES // 4)
    assert len(page.frames) == len(encoded(site.hub.window)) == 7
