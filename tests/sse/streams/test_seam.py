"""The seam between replay and live, for generator streams: real threads, publishers at full speed, and streams that open
and resume at random cursors."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from sse.events.model import Event, format_id
from tests.sse.worker_parts import Parts

SECONDS = 1.2
CHANNELS = ("a", "b", "quiet", "room:1")
SUBSCRIPTIONS = (
    (("a",), None),
    (("a", "b", "quiet"), None),
    (("quiet",), None),
    (("a", "b"), frozenset({"x"})),
    (("*",), None),
    (("room:*", "quiet"), None),
    (("q*", "b"), frozenset({"x"})),
)


class Publisher(threading.Thread):
    """Appends at full speed, sometimes in batches; records what was acknowledged."""

    def __init__(self, worker: Parts, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[tuple[int, Event]] = []
        self._worker, self._random, self._stop_now = worker, random.Random(seed), stop

    def run(self) -> None:
        while not self._stop_now.is_set():
            events = [
                Event(
                    self._random.choices(CHANNELS, [60, 40, 1, 10])[0],
                    "." * self._random.choice([1, 50, 400]),
                    self._random.choice([None, "x"]),
                )
                for _ in range(self._random.choice([1, 1, 1, 1, 30]))
            ]
            self.acknowledged += zip(self._worker.log.append(events), events, strict=True)


class Reader(threading.Thread):
    """Opens one stream after another, at cursors of all kinds, and records what each was sent."""

    def __init__(self, worker: Parts, publishers: list[Publisher], seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        #: subscription, first cursor, positions seen over all connections, the last cursor
        self.ledgers: list[tuple[tuple[str, ...], frozenset[str] | None, int, list[int], int]] = []
        self.error: BaseException | None = None
        self._worker, self._publishers = worker, publishers
        self._random, self._stop_now = random.Random(seed), stop

    def run(self) -> None:
        try:
            while not self._stop_now.is_set():
                self._client()
        except BaseException as error:
            self.error = error

    def _client(self) -> None:
        """One client over several connections, each cut anywhere."""
        channels, types = self._random.choice(SUBSCRIPTIONS)
        cursor = self._cursor()
        first: int | None = None
        seen: list[int] = []
        last = 0
        for _ in range(self._random.randrange(1, 6)):
            stream = self._worker.open(cursor, *channels, types=types, ends_in=0.5)
            assert stream.start.reset is None, stream.start
            if first is None:
                first = stream.start.cursor
            for _ in range(self._random.choice([0, 1, 3, 20])):
                if stream.turn() is None:
                    break
            stream.close()
            seen += stream.ids
            cursor = stream.last_event_id
            last = max([stream.start.cursor, last, *stream.ids])
        assert first is not None
        self.ledgers.append((channels, types, first, seen, last))

    def _cursor(self) -> str | None:
        """Return None, or the newest acknowledged id, which this worker may not have read yet, or an older id."""
        acknowledged = self._random.choice(self._publishers).acknowledged
        if not acknowledged or self._random.random() < 0.2:
            return None
        back = self._random.choice([1, 1, 5, 100, 2000])
        return format_id(acknowledged[-min(back, len(acknowledged))][0])


@pytest.mark.parametrize(
    "window", [pytest.param(10_000_000, id="from the window"), pytest.param(1024, id="and the log")]
)
@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_every_client_sees_exactly_what_was_acknowledged_after_its_cursor(
    tmp_path: Path, engine: str, window: int
) -> None:
    url = "memory:" if engine == "memory" else f"sqlite:///{tmp_path}/h.db"
    with Parts(url, SSE_WINDOW_BYTES=window, SSE_REPLAY_LIMIT=10**7, SSE_RETAIN_EVENTS=10**7) as worker:
        stop = threading.Event()
        publishers = [Publisher(worker, seed, stop) for seed in range(3)]
        readers = [Reader(worker, publishers, seed, stop) for seed in range(4)]
        for thread in (*publishers, *readers):
            thread.start()
        time.sleep(SECONDS)
        stop.set()
        for thread in (*publishers, *readers):
            thread.join(20)
            assert not thread.is_alive(), "a stream does not end"
    everything = sorted((entry for publisher in publishers for entry in publisher.acknowledged), key=lambda e: e[0])
    assert len({position for position, _ in everything}) == len(everything)
    checked = 0
    for reader in readers:
        assert reader.error is None, reader.error
        for channels, types, first, seen, last in reader.ledgers:
            assert seen == [
                position
                for position, event in everything
                if first < position <= last
                and any(event.channel == c or (c[-1] == "*" and event.channel.startswith(c[:-1])) for c in channels)
                and (types is None or (event.event or "message") in types)
            ]
            checked += len(seen)
    assert checked > 100, "nothing to speak of was checked"
