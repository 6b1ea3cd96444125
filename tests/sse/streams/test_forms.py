"""Forms: an envelope is made once, and only if a stream asks for it; markers and our own blocks in each form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from sse.events.model import Event, Record
from sse.events.wire import Frame, encode_frame
from sse.streams.forms import ENVELOPES_BYTES, Envelopes, Forms
from sse.streams.group import Subscription
from tests.sse.worker_parts import Parts, Stepped, numbers


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each frame's envelope was made."""
    counts = Counter[int]()
    envelope = Frame.envelope

    def counting(frame: Frame) -> bytes:
        counts[frame.position] += 1
        return envelope(frame)

    monkeypatch.setattr(Frame, "envelope", counting)
    return counts


def test_an_envelope_is_made_once_for_all_groups_that_ask_for_it(closing: ExitStack, made: Counter[int]) -> None:
    site = Stepped(closing)
    start = site.hub.window.position
    asking = [Subscription(frozenset({"a"}), None, True), Subscription(frozenset({"*"}), None, True, True)]
    site.open(start)
    clients = [site.open(start, site.hub.join(one)) for one in asking]
    positions = site.append(*numbers(1, 5))
    site.fanout.passes.wake()
    site.fanout.passes.run()
    late = site.open(start, site.hub.join(asking[0]))
    for client in (*clients, late):
        client.read(100_000)
        assert len(client.blocks) == 5
    assert made == dict.fromkeys(positions, 1)


def test_nobody_who_does_not_ask_for_envelopes_pays_for_them(closing: ExitStack, made: Counter[int]) -> None:
    site = Stepped(closing)
    client = site.open(site.hub.window.position)
    site.append(*numbers(1, 5))
    site.fanout.passes.wake()
    site.fanout.passes.run()
    client.read(100_000)
    assert len(client.blocks) == 5 and not made


def test_what_envelopes_are_kept_is_bounded() -> None:
    envelopes = Envelopes()
    for position in range(1, 100):
        envelopes.of(encode_frame(Record(position, "a", None, None, "." * 200_000)))
        assert sum(map(len, envelopes._made.values())) <= ENVELOPES_BYTES + 300_000
    assert len(envelopes._made) > 1


@pytest.mark.parametrize("envelope", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_markers_never_get_an_envelope(envelope: bool, plain: bool) -> None:
    form = Forms().of(envelope, plain)
    frame = encode_frame(Record(5 << 20, "orders", "stream-end", None, '{"channel":"orders"}'))
    (wire,) = form.wires([frame])
    assert wire == (b': stream-end {"channel":"orders"}\n' if plain else frame.wire)


def test_the_only_reconnection_time_of_a_plain_stream_is_at_its_end() -> None:
    form = Forms().of(False, True)
    assert form.opening(5, 2000, 7) == b": heartbeat 7\n\n"
    assert form.sent_away(5, 2000, 7) == b": heartbeat 7\n\nretry: 2000\n"


@pytest.mark.parametrize("window", [pytest.param(10**7, id="window"), pytest.param(1024, id="log")])
def test_a_generator_stream_is_written_in_its_form(parts: Callable[..., Parts], window: int) -> None:
    worker = parts(SSE_WINDOW_BYTES=window)
    start = worker.resolve(None).cursor
    worker.append(*numbers(1, 12))
    stream = worker.open("malformed", envelope=True, plain=True)
    assert len(stream.read(12)) == 12
    (first, *_) = stream.blocks
    assert first.data == f'{{"channel":"a","id":"{first.id}","data":"1"}}' and stream.ids[0] > start
    assert stream.parser.comments == 2, "the opening and the reset"
    worker.change(SSE_HEARTBEAT=0.01)
    stream.turn()
    assert stream.parser.comments == 3, "a heartbeat"
    stream.stream.end("lease")
    stream.read_to_end()
    assert len(stream.data) == 12 and stream.parser.partial


def test_a_filter_by_type_never_drops_a_marker(parts: Callable[..., Parts]) -> None:
    worker = parts()
    stream = worker.open(None, types=frozenset({"x"}))
    worker.append("1")
    worker.log.append([Event("a", "2", "x")], close=["a"])
    while not stream.blocks or stream.blocks[-1].event != "stream-end":
        assert stream.turn() is not None
    assert [block.data for block in stream.blocks if not block.is_control][0] == "2"
