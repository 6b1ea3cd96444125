"""The seam between replay and live, hard: publishers at full speed in processes of their own, while streams open at
cursors of all kinds, break off anywhere and resume. Every client's ledger is exactly what was acknowledged."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.live.other_servers import GEVENT, GTHREAD, OURS, start
from tests.support.ledger import check, owed, position
from tests.support.publisher import Publishers
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient, StreamEnded

CHANNELS = ("a", "b", "c")
TYPES = ("", "x")
SUBSCRIPTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...] | None], ...] = (
    ("/events/a", ("a",), None),
    ("/events?channel=a&channel=b&channel=c", CHANNELS, None),
    ("/events?channel=b&channel=c&event=x", ("b", "c"), ("x",)),
    ("/events?channel=c&event=message", ("c",), ("message",)),
)
SECONDS = 2.0


class Spotter(threading.Thread):
    """Reads one stream of all channels, so that others may begin at its ids: the newest are under a millisecond old."""

    def __init__(self, server: Server, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.ids: list[str] = []
        self._stop_now = stop
        self._client = SSEClient(server.port, SUBSCRIPTIONS[1][0])
        self.begin = self._client.next_event().id or ""

    def run(self) -> None:
        with self._client as client:
            while not self._stop_now.is_set():
                try:
                    self.ids.append(client.next_message(0.5).id or "")
                except TimeoutError:
                    continue


class Reader(threading.Thread):
    """Plays one client after the other; each breaks off some connections."""

    def __init__(self, server: Server, spotter: Spotter, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        #: channels, types, first cursor, ids seen over all connections, the cursor at the end
        self.ledgers: list[tuple[Sequence[str], Sequence[str] | None, str, list[str], str]] = []
        self.connections = 0
        self.error: BaseException | None = None
        self._port, self._spotter, self._stop_now = server.port, spotter, stop
        self._random = random.Random(seed)

    def run(self) -> None:
        try:
            while not self._stop_now.is_set():
                self._one_client()
        except BaseException as error:
            self.error = error

    def _one_client(self) -> None:
        target, channels, types = self._random.choice(SUBSCRIPTIONS)
        cursor, begin, seen = self._cursor(), "", []
        for _ in range(self._random.randrange(1, 6)):
            with SSEClient(self._port, target, last_event_id=cursor, timeout=20) as client:
                self.connections += 1
                opening = client.next_event(20)
                if client.ending is not Ending.OPEN:  # sent away: a place is not free yet
                    time.sleep(0.05)
                begin = begin or opening.id or ""
                assert cursor is None or opening.id == cursor, "a cursor that the log knows is honoured exactly"
                cursor = opening.id
                for _ in range(self._random.choice([0, 1, 10, 200])):
                    try:
                        block = client.next_event(1)
                    except (TimeoutError, StreamEnded):
                        break
                    assert block.event != "stream-reset", block
                    cursor = block.id or cursor
                    if not block.is_control:
                        seen.append(cursor)
                    if self._stop_now.is_set():
                        break
                if self._random.random() < 0.3:
                    client.abort()
        if begin:
            self.ledgers.append((channels, types, begin, seen, cursor or begin))

    def _cursor(self) -> str | None:
        known = self._spotter.ids
        if not known or self._random.random() < 0.2:
            return None
        return known[-min(self._random.choice([1, 1, 2, 50, 1000]), len(known))]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param(OURS, {}, id="taken over"),
        pytest.param(OURS, {"SSE_WINDOW_BYTES": 1024, "WEB_CONCURRENCY": 2}, id="two workers, replay from the log"),
        pytest.param(GEVENT, {"SSE_WINDOW_BYTES": 20_000}, id="generators in greenlets"),
        pytest.param(GTHREAD, {"SSE_WINDOW_BYTES": 20_000, "SSE_HEARTBEAT": 0.2}, id="generators in threads"),
    ],
)
def test_every_client_sees_exactly_the_acknowledged_events_after_its_cursor(
    kind: str, settings: dict[str, Any]
) -> None:
    limits: dict[str, Any] = {"SSE_REPLAY_LIMIT": 1_000_000, "SSE_RETAIN_EVENTS": 10_000_000, "LOG_LEVEL": "warning"}
    stop = threading.Event()
    with ExitStack() as stack:
        server = stack.enter_context(closing(start(kind, **limits, **settings)))
        spotter = Spotter(server, stop)
        readers = [Reader(server, spotter, seed, stop) for seed in range(4)]
        publishers = stack.enter_context(Publishers(server.port, 2, channels=CHANNELS, types=TYPES))
        try:
            publishers.wait_progress(1000)
            for thread in (spotter, *readers):
                thread.start()
            time.sleep(SECONDS)
            published = publishers.stop()
        finally:
            stop.set()
            for thread in (spotter, *readers):
                if thread.ident is not None:
                    thread.join(30)
    for reader in readers:
        assert not reader.is_alive()
        if reader.error is not None:
            raise reader.error
    checked = connections = 0
    for reader in readers:
        connections += reader.connections
        for channels, types, begin, seen, end in reader.ledgers:
            expected = [name for name in owed(published, begin, channels, types) if position(name) <= position(end)]
            check(seen, expected, f"{channels} {types} from {begin} to {end}")
            checked += len(seen)
    check(spotter.ids, owed(published, spotter.begin, CHANNELS)[: len(spotter.ids)], "the spotter")
    print(f"{len(published)} events published, {connections} connections, {checked} events checked")
    assert len(published) > 50 and connections > 10 and checked > 50, "nothing to speak of was checked"
