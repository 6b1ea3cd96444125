"""Channels that are closed and erased, and streams that are revoked, under random interleavings (see test_seam.py).

A stream is sent everything that it is owed, or ends; no byte of an erased event is written after its marker was
dispatched; and a stream ends if, and only if, there is a reason.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import Any

import pytest

from sse.events.markers import end_marker, erased_marker, own_event
from sse.events.names import CONTROL_CHANNEL
from sse.events.patterns import is_pattern
from sse.fanout import catchup, passes, upkeep
from sse.log import ChannelClosed
from sse.streams.stream import CloseReason, State, Stream
from tests.sse.fanout.test_seam import CHANNELS, World, play
from tests.sse.worker_parts import SocketClient

OWNERS = ("", "ann", "bob")


class Life(World):
    """closed: the channels that are closed; erased: positions whose events were erased, with their marker's."""

    def __init__(self, seed: int, closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(seed, closing, monkeypatch)
        self.closed: dict[str, int] = {}
        self.erased: dict[int, int] = {}
        self.forbidden: set[bytes] = set()
        self.reasons: dict[Stream, CloseReason] = {}
        self.revoked: list[SocketClient] = []
        self.steps += [(1, self.close_one), (1, self.erase_one), (1, self.revoke_one), (3, self.run_endings)]
        self.hub._on_close = lambda stream, reason, now: self.reasons.update({stream: reason})
        monkeypatch.setattr(os, "write", self.write)

    # ── what may happen ───────────────────────────────────────────────────────────────────────────────────────

    def publish(self) -> None:
        try:
            super().publish()
        except ChannelClosed:
            pass  # nothing was stored

    def close_one(self) -> None:
        channel = self.random.choice(CHANNELS)
        if channel not in self.closed:
            (position,) = self.parts.log.append([], close=[channel])
            self.closed[channel] = position
            self.events.append((position, end_marker(channel)))

    def erase_one(self) -> None:
        channel = self.random.choice(CHANNELS)
        through = self.parts.log.erase(channel).through
        self.closed.pop(channel, None)
        for position, event in self.events:
            # (An earlier marker that was not dispatched yet has been erased, too.)
            if event.channel == channel and self.erased.get(position, through) > self.hub.window.position:
                self.erased[position] = through
        self.events.append((through, erased_marker(channel, through)))

    def revoke_one(self) -> None:
        owner = self.random.choice(OWNERS[1:])
        self.parts.log.append([own_event(CONTROL_CHANNEL, "revoke", json.dumps({"subject": owner, "at": 1}))])

    def client_comes(self) -> None:
        before = len(self.clients)
        super().client_comes()
        for client in self.clients[before:]:
            client.stream.owner = self.random.choice(OWNERS)

    def dispatch(self, most: int = 1000) -> None:
        before = self.hub.window.position
        records = self.parts.log.inner.read(None, before, most, 10**9)
        for record in records:
            if record.channel == CONTROL_CHANNEL:
                owner = json.loads(record.data)["subject"]
                self.revoked += [client for client in self.clients if client.stream.owner == owner]
        if records:
            self.hub.dispatch(records)
        through = self.hub.window.position
        for position, event in self.events:
            if self.erased.get(position, through + 1) <= through and event.data.startswith("<"):
                self.forbidden.add(event.data.partition(">")[0].encode() + b">")

    def write(self, fd: int, data: Any) -> int:
        """Check what the fan-out writes, in place of ``os.write``."""
        if fd < len(self.fanout.sockets.streams) and self.fanout.sockets.streams[fd] is not None:
            written = bytes(data)
            assert not [text for text in self.forbidden if text in written], "an erased event was written"
        return write(fd, data)

    # ── what must be true ─────────────────────────────────────────────────────────────────────────────────────

    def may_lack(self, client: SocketClient, position: int) -> bool:
        if position in self.erased:
            return True
        return client.stream.group.subscription.plain and any(
            p == position and event.event in ("stream-end", "stream-reset") for p, event in self.events
        )

    def check_end(self, client: SocketClient) -> None:
        stream = client.stream
        ended = stream.state in (State.LINGERING, State.CLOSED)
        reason = self.reasons.get(stream) or (stream.backlog and stream.backlog.end)
        subscription = stream.group.subscription
        finite = not any(map(is_pattern, subscription.channels))
        if client in self.revoked or (finite and subscription.channels <= self.closed.keys()):
            assert ended, "it should have ended"
        if reason == "revoked":
            assert client in self.revoked
        if reason == "ended":
            assert finite
        if reason == "erased":
            self.cut.append(client)
            assert self.erased
        if ended:
            assert reason in ("lease", "ended", "revoked", "erased"), reason


write = os.write


@pytest.mark.parametrize("seed", range(30))
def test_closing_erasing_and_revoking_are_exact_under_random_interleavings(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(Life, seed, monkeypatch, 150)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_random_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(1000, 2000):
        play(Life, seed, monkeypatch, 200)


def test_the_fan_out_writes_through_the_functions_that_are_checked() -> None:
    for module in catchup, passes, upkeep:
        assert module.os is os  # type: ignore[attr-defined]
