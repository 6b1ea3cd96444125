"""The seam between catch-up and live, under random interleavings.

No server, no event loop: the fan-out's own steps are called one by one in a random order, and wherever it would let
others run (a pass over many sockets, a read of the log), random other steps run. The sockets are real and small, so
writes fall short everywhere. What each client must have seen is known from a list.
"""

from __future__ import annotations

import json
import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from contextlib import ExitStack
from operator import itemgetter

import pytest

from sse.events.markers import MARKERS, is_marker
from sse.events.model import Event, format_id, parse_id
from sse.events.patterns import reduced
from sse.fanout import endings, fanout, passes
from sse.streams.group import Subscription
from sse.streams.stream import State
from tests.sse.worker_parts import SocketClient, Stepped
from tests.support.sse_parser import StreamEvent

CHANNELS = ("a", "a:x", "a:y", "b", "c:1")
SELECTORS = (*CHANNELS, "quiet", "*", "a*", "a:*", "b*", "none:*")
TYPES = (None, "x", "y")
SMALL = 2048  # bytes; the kernel's minimum is 4,608


class World(Stepped):
    """Clients and a sequence of events; :meth:`something` takes one random step."""

    def __init__(self, seed: int, closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)
        window = self.random.choice([1024, 20_000, 10_000_000])
        monkeypatch.setattr("sse.streams.window.LOOK", self.random.choice([1, 7, 2000]))
        super().__init__(closing, SSE_WINDOW_BYTES=window, SSE_HEARTBEAT=0.01, SSE_MAX_STREAM_AGE=0)
        self.gzip = self.random.choice([0.0, 0.7, 1.0])  # the share of streams with gzip
        monkeypatch.setattr("sse.streams.tailer.STOOD_STILL", 1e9)  # a test that is slow waits for no tailer: it has none
        monkeypatch.setattr("sse.streams.compression.EPOCH_BYTES", self.random.choice([300, 5000]))
        monkeypatch.setattr("sse.streams.compression.MAX_EPOCHS", self.random.choice([2, 64]))
        monkeypatch.setattr("sse.streams.compression.EPOCH_IDLE", self.random.choice([0.002, 30]))
        monkeypatch.setattr("sse.events.gzipped.SLICE_BYTES", self.random.choice([4000, 65536]))
        self.clients: list[SocketClient] = []
        self.cut: list[SocketClient] = []  # clients whose stream had no clean end
        self.events: list[tuple[int, Event]] = []
        self.start = self.hub.window.position
        self.depth = 0
        self.reading_log = self.in_passes = False
        self.steps: list[tuple[int, Callable[[], None]]] = [
            (8, self.publish),
            (4, self.dispatch_some),
            (3, self.client_comes),
            (8, self.read),
            (5, self.poll),
            (6, self.run_pass),
            (3, self.read_log),
            (1, self.heartbeats),
            (1, self.end_one),
            (1, self.client_goes),
        ]
        for module in passes, fanout, endings:
            monkeypatch.setattr(module, "PASS_SLICE", 0.0)
            monkeypatch.setattr(module, "breathe", self.others)
        monkeypatch.setattr(passes, "CLOCK_EVERY", 1)
        monkeypatch.setattr(endings, "CLOCK_EVERY", 1)
        monkeypatch.setattr(passes, "MAX_CHUNK_BYTES", 6000)
        monkeypatch.setattr("sse.fanout.catchup.PAGE_BYTES", 1500)
        self.parts.log.on_read = lambda *_: self.others()

    # ── what may happen ───────────────────────────────────────────────────────────────────────────────────────

    def something(self) -> None:
        (step,) = self.random.choices([s for _, s in self.steps], [w for w, _ in self.steps])
        step()

    def others(self) -> None:
        """Take random steps while the fan-out lets the event loop run."""
        if self.depth < 2:
            self.depth += 1
            for _ in range(self.random.randrange(4)):
                self.something()
            self.depth -= 1

    def publish(self) -> None:
        events = [
            Event(
                self.random.choice(CHANNELS),
                f"<{len(self.events) + n}>" + self.random.choice(["", "", "\r\n\n", "\r", "." * 200, "." * 3000]),
                self.random.choice(TYPES),
            )
            for n in range(self.random.randrange(1, 8))
        ]
        self.events += zip(self.parts.log.append(events), events, strict=True)

    def dispatch_some(self) -> None:
        self.dispatch(self.random.randrange(1, 30))

    def client_comes(self) -> None:
        if len(self.clients) >= 12:
            return
        channels = reduced(self.random.sample(SELECTORS, self.random.randrange(1, 4)))
        types = self.random.choice([None, None, frozenset({"x", "message"})])
        known = [self.start] + [position for position, _ in self.events if position <= self.hub.window.position]
        cursor = self.random.choice([None, known[-1], self.random.choice(known)])
        envelope, plain = self.random.random() < 0.3, self.random.random() < 0.3
        group = self.hub.join(Subscription(channels, types, envelope, plain, self.random.random() < self.gzip))
        text = None if cursor is None else format_id(cursor)
        begin = self.hub.replay.resolve(group, text, cursor)
        assert begin.reset is None
        if cursor is not None:
            assert begin.cursor == cursor
        self.clients.append(self.open(begin.cursor, group, send_buffer=SMALL))

    def read(self) -> None:
        if self.clients:
            self.random.choice(self.clients).read(self.random.choice([50, 3000, 100_000]))

    def run_pass(self) -> None:
        if not self.in_passes:  # passes have one greenlet
            self.in_passes = True
            self.fanout.passes._work.set()
            self.fanout.passes.run()
            self.in_passes = False

    def read_log(self) -> None:
        if self.fanout.catchup._want_log and not self.reading_log:  # two in one thread would wait for each other
            self.reading_log = True
            self.fanout.catchup.read_log()
            self.reading_log = False

    def run_endings(self) -> None:
        if self.fanout.endings._jobs:
            self.fanout.endings.run()

    def heartbeats(self) -> None:
        time.sleep(0.011)
        self.fanout.upkeep.sweep(time.monotonic(), 10.0)

    def end_one(self) -> None:
        if self.clients and self.random.random() < 0.3:
            self.fanout.catchup.end(self.random.choice(self.clients).stream, "lease")

    def client_goes(self) -> None:
        if len(self.clients) > 3 and self.random.random() < 0.3:
            self.clients.pop(self.random.randrange(len(self.clients))).sock.close()

    # ── what must be true ─────────────────────────────────────────────────────────────────────────────────────

    def expected(self, client: SocketClient) -> list[int]:
        subscription = client.stream.group.subscription
        channels, types = subscription.channels, subscription.types
        return [
            position
            for position, event in self.events
            if position > client.begin
            and selected(event.channel, channels)
            and (types is None or (event.event or "message") in types or is_marker(event.event))
        ]

    def may_lack(self, client: SocketClient, position: int) -> bool:
        """Tell whether a client need not be sent an event that it is owed."""
        return False

    def check(self, client: SocketClient, *, complete: bool) -> None:
        owed = self.expected(client)
        seen, position = 0, client.begin
        for block in client.blocks:
            if block.id is None:
                continue
            previous, position = position, parse_id(block.id)
            if block.is_control and block.event not in MARKERS:
                assert position >= previous, "an id below what was sent"
                before = bisect_right(owed, position)
            else:
                assert position in owed[seen:], "not one of the next events"
                self.check_form(client, block, position)
                before = owed.index(position)
            assert all(self.may_lack(client, p) for p in owed[seen:before]), "an event was left out"
            seen = max(seen, before + (position in owed[before : before + 1]))
        if complete:
            left = [p for p in owed[seen:] if not self.may_lack(client, p)]
            assert not left, f"{len(left)} events are missing"

    def check_form(self, client: SocketClient, block: StreamEvent, position: int) -> None:
        at = bisect_left(self.events, position, key=itemgetter(0))
        event = self.events[at][1]
        type_ = {} if event.event is None else {"event": event.event}
        assert block.event == event.event
        if client.stream.group.subscription.envelope and not is_marker(event.event):
            content = {"channel": event.channel, "id": format_id(position), **type_, "data": event.data}
            assert json.loads(block.data or "") == content
        else:
            assert block.data == event.data.replace("\r\n", "\n").replace("\r", "\n")

    def check_end(self, client: SocketClient) -> None:
        """Check, once all has come to rest, whether a stream should have ended."""

    def settle(self) -> None:
        """Let everything come to rest, without new events."""
        self.depth = 2
        deadline = time.monotonic() + 10
        quiet = 0
        cursors: list[int] = []
        while quiet < 3:
            assert time.monotonic() < deadline, "the fan-out does not come to rest"
            self.dispatch_some()
            self.run_pass()
            self.read_log()
            self.poll()
            self.run_endings()
            got = sum([client.read(1_000_000) for client in self.clients])
            behind = self.hub.window.position < self.parts.log.inner.bounds().latest
            busy = self.hub.dirty or self.fanout.catchup._want_log or self.fanout.endings._jobs
            before, cursors = cursors, [client.stream.cursor for client in self.clients]
            quiet = 0 if got or behind or busy or cursors != before else quiet + 1


def selected(channel: str, selectors: Collection[str]) -> bool:
    return any(channel == s or (s[-1] == "*" and channel.startswith(s[:-1])) for s in selectors)


def play(world_of: type[World], seed: int, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    with ExitStack() as closing:
        world = world_of(seed, closing, monkeypatch)
        for _ in range(steps):
            world.something()
            for client in world.clients:
                world.check(client, complete=False)
        world.settle()
        for client in world.clients:
            ended = client.stream.state in (State.LINGERING, State.CLOSED)
            assert ended or client.stream.state == "live", client.stream.state
            world.check(client, complete=not ended)
            world.check_end(client)
            if ended and client.finished and client not in world.cut:
                assert client.decoder.terminated
                if client.stream.group.subscription.plain:
                    assert client.parser.partial and not [block for block in client.blocks if block.is_control]
                else:
                    assert client.blocks[-1].retry is not None
        # A live stream still gets new events.
        world.publish()
        world.settle()
        for client in world.clients:
            world.check(client, complete=client.stream.state not in (State.LINGERING, State.CLOSED))
        for client in world.clients:
            world.fanout.sockets.close(client.stream, "client")
        world.poll()
        assert world.fanout.sockets.count == 0 and world.hub.admission.streams == 0 and not world.hub.groups


@pytest.mark.parametrize("seed", range(25))
def test_each_client_sees_exactly_its_events_in_order_under_random_interleavings(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(World, seed, monkeypatch, 150)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_random_interleavings(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(1000, 2000):
        play(World, seed, monkeypatch, 200)
