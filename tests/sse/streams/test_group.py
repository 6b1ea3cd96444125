"""Groups: their live streams, their position, and what each stream was sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sse.events.wire import Frame
from sse.streams.group import Group, Subscription
from sse.streams.stream import Stream


def group_of(*channels: str, types: frozenset[str] | None = None) -> Group:
    return Group(Subscription(frozenset(channels), types), now=0.0)


def stream_of(group: Group) -> Stream:
    return Stream(group, 0, now=0.0, ends_at=float("inf"), client="-")


@given(st.lists(st.one_of(st.just("join"), st.integers(0, 50), st.tuples(st.integers(1, 5), st.integers(1, 99)))))
def test_each_stream_counts_what_was_sent_while_it_was_live(
    steps: list[str | int | tuple[int, int]],
) -> None:
    group = group_of("a")
    live: list[Stream] = []
    owed: dict[int, list[int]] = {}
    for step in steps:
        if step == "join":
            stream = stream_of(group)
            group.add_live(stream)
            live.append(stream)
            owed[id(stream)] = [0, 0]
        elif isinstance(step, int):
            if live:
                stream = live.pop(step % len(live))
                group.remove_live(stream)
                assert [stream.events, stream.bytes] == owed[id(stream)]
        elif isinstance(step, tuple):
            group.events += step[0]
            group.bytes += step[1]
            for stream in live:
                owed[id(stream)][0] += step[0]
                owed[id(stream)][1] += step[1]
        assert set(map(id, group.live)) == set(map(id, live))
        assert all(group.live[stream.index] is stream for stream in live)
    for stream in live:
        group.remove_live(stream)
        assert [stream.events, stream.bytes] == owed[id(stream)]


def test_a_group_without_pending_frames_stands_where_the_worker_has_read_to() -> None:
    assert group_of("a").position(77) == 77


def test_a_group_with_pending_frames_stands_right_before_the_first_of_them() -> None:
    group = group_of("a")
    group.pending = [Frame(50, "a", None, b""), Frame(60, "a", None, b"")]
    assert group.position(77) == 49


def test_subscriptions_are_equal_in_whatever_order_their_channels_were_named() -> None:
    one = Subscription(frozenset(["a", "b"]), frozenset(["x", "y"]))
    other = Subscription(frozenset(["b", "a"]), frozenset(["y", "x"]))
    assert {one: 1}[other] == 1
    assert one.label() == other.label() == "a,b?event=x,y"
    assert Subscription(frozenset(["a"])).label() == "a"
