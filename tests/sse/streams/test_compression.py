"""Shared compression under any sequence of what can happen to a group: each stream decodes to what it was sent."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sse.events.chunked import LAST_CHUNK
from sse.events.gzipped import Sums, alone, shifted
from sse.streams import compression
from sse.streams.compression import ALONE, EPOCH_IDLE, MAX_EPOCHS, NOT_MADE, SHARED, Epochs
from sse.streams.group import Group, Groups, Subscription
from sse.streams.gzip_stream import GzipStream
from tests.support.sse_parser import ChunkedDecoder


class Client:
    """A stream, what it was sent, and a decompressor that knows nothing else."""

    def __init__(self, group: Group, opening: bytes) -> None:
        self.stream = GzipStream(group, 0, now=0.0, ends_at=float("inf"), client="-")
        self.text, self.live = b"", True
        self.gunzip, self.chunks = zlib.decompressobj(wbits=31), ChunkedDecoder()
        self.got = self.gunzip.decompress(self.stream.opening(opening))
        self.owed(opening)
        group.add_live(self.stream)

    def owed(self, text: bytes) -> None:
        self.text += text
        assert self.got == self.text  # at once

    def take(self, wire: bytes, text: bytes) -> None:
        self.got += self.gunzip.decompress(self.chunks.feed(wire))
        self.owed(text)

    def end(self, text: bytes) -> None:
        self.take(self.stream.last(text), text)
        assert self.gunzip.eof and not self.gunzip.unused_data and self.chunks.terminated


class World:
    def __init__(self) -> None:
        self.group = Group(Subscription(frozenset({"a"}), gzip=True), 0.0, epochs=Epochs())
        self.clients: list[Client] = []
        self.now = 1000.0

    def chunk(self, text: bytes, unsent: set[int], *, event: bool = True) -> None:
        assert self.group.compression is not None
        wires = self.group.compression.encode(text, self.now, lambda: None, event=event)
        for number, client in enumerate(self.clients):
            if not client.live:
                continue
            if number in unsent:
                self.group.compression.unsent(client.stream)
                self.leave(client)
            else:
                client.take(wires[client.stream.coding], text)

    def leave(self, client: Client) -> None:
        self.group.remove_live(client.stream)
        client.live = False

    def page(self, client: Client, text: bytes) -> None:
        """What a stream is sent of its own, before it is live again."""
        if client.live:
            self.leave(client)
        client.stream.count(text)
        size = alone(text)
        client.take(b"%x\r\n%b\r\n" % (len(size), size), text)
        self.group.add_live(client.stream)
        client.live = True


TEXTS = st.builds(
    lambda seed, size: (b"id: %d\ndata: " % seed + random.Random(seed).randbytes(20).hex().encode() * size)[
        : 40 + 30 * size
    ],
    st.integers(0, 5),
    st.integers(0, 200),
)
INDEX = st.integers(0, 9)
STEPS = st.one_of(
    st.tuples(st.just("join"), TEXTS),
    st.tuples(st.just("event"), TEXTS, st.sets(INDEX, max_size=2)),
    st.tuples(st.just("event"), TEXTS, st.just(set())),
    st.tuples(st.just("beat"), TEXTS),
    st.tuples(st.just("page"), INDEX, TEXTS),
    st.tuples(st.just("end"), INDEX, TEXTS),
    st.tuples(st.just("close")),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 11.0, 31.0])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_each_stream_decodes_to_what_it_was_sent_and_its_end_is_right(steps: list[Any]) -> None:
    world = World()
    for step, *values in steps:
        chosen = world.clients[values[0] % len(world.clients)] if world.clients and step in ("page", "end") else None
        match step:
            case "join" if len(world.clients) < 8:
                world.clients.append(Client(world.group, values[0]))
            case "event":
                world.chunk(values[0], values[1])
            case "beat":
                world.chunk(values[0], set(), event=False)
            case "page" if chosen is not None:
                world.page(chosen, values[1])
            case "end" if chosen is not None:
                if chosen.live:
                    world.leave(chosen)
                chosen.end(values[1])
                world.clients.remove(chosen)
            case "close":
                assert world.group.compression is not None
                world.group.compression.close()
            case "wait":
                world.now += values[0]
                assert world.group.compression is not None
                world.group.compression._epochs.end_idle(world.now)
        assert world.group.compression is not None
        inside = sum(client.stream.coding == SHARED for client in world.clients)
        assert world.group.compression.inside == inside
    for client in world.clients:
        if client.live:
            world.leave(client)
        client.end(b"retry: 1\n\n")


@given(st.binary(max_size=100), st.integers(0, 5000), st.integers(0, 255))
def test_shifting_a_crc_is_what_zlib_computes(one: bytes, count: int, byte: int) -> None:
    other = bytes([byte]) * count
    assert zlib.crc32(one + other) == shifted(zlib.crc32(one), count) ^ zlib.crc32(other)


def test_a_stream_of_more_than_four_gigabytes_states_its_length_modulo() -> None:
    group = Group(Subscription(frozenset({"a"}), gzip=True), 0.0, epochs=Epochs())
    stream = GzipStream(group, 0, now=0.0, ends_at=float("inf"), client="-")
    stream.count(b"x" * 10)
    stream.count_from(Sums(1, 100))
    stream.count_to(Sums(2, 100 + 2**33 + 5))
    assert stream.last(b"y")[: -len(LAST_CHUNK) - 2].endswith((16).to_bytes(4, "little"))


def test_a_chunk_has_only_the_forms_that_somebody_needs() -> None:
    world = World()
    world.clients = [Client(world.group, b"open") for _ in range(3)]
    encode = world.group.compression.encode  # type: ignore[union-attr]
    wires = encode(b"data: one\n\n", 1.0, lambda: None)
    assert wires[ALONE] is NOT_MADE and wires[SHARED]
    Client(world.group, b"open")  # waits for the next epoch
    wires = encode(b"data: one\n\n", 2.0, lambda: None)
    assert wires[ALONE] and wires[SHARED] and len(wires[SHARED]) < len(wires[ALONE])
    wires = encode(b"data: one\n\n", 20.0, lambda: None)  # which has begun
    assert wires[ALONE] is NOT_MADE and wires[SHARED]


def test_ten_thousand_groups_have_few_compressors_and_idle_ones_none() -> None:
    groups = Groups()
    subscriptions = [Subscription(frozenset({f"a{number}"}), gzip=True) for number in range(MAX_EPOCHS * 3)]
    ours = [groups.join(subscription) for subscription in subscriptions]
    for group in ours:
        Client(group, b"open")
        assert group.compression is not None
        wires = group.compression.encode(b"data: x\n\n", 1.0, lambda: None)
        assert (wires[SHARED] is None) != (wires[ALONE] is None)
    assert len(groups.epochs) == MAX_EPOCHS
    crowd = groups.join(Subscription(frozenset({"crowd"}), gzip=True))
    for _ in range(2):
        Client(crowd, b"open")
    assert crowd.compression is not None
    assert crowd.compression.encode(b"data: x\n\n", 2.0, lambda: None)[SHARED]
    assert len(groups.epochs) == MAX_EPOCHS
    groups.epochs.end_idle(2.0 + EPOCH_IDLE)
    assert len(groups.epochs) == 0


def test_a_failure_ends_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.clients = [Client(world.group, b"open") for _ in range(2)]
    world.chunk(b"data: x\n\n", set())
    with monkeypatch.context() as patch:
        patch.setattr(compression.gzipped, "piece", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.chunk(b"data: y\n\n", set())
    for client in world.clients:
        world.group.compression.unsent(client.stream)  # type: ignore[union-attr]
        world.leave(client)
        client.end(b"retry: 1\n\n")
