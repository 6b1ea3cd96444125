"""Workers' runs without workers: the real thing over a real log, and what is in the log afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

from sse.events.model import Record
from sse.log import Log, open_log
from sse.runs.book import Info
from sse.runs.manager import Runs
from sse.runs.states import State
from sse.settings import Settings
from sse.streams.stats import Stats
from tests.support.wait import eventually


class Stored(NamedTuple):
    """What a channel holds: the data of its items, its ends, and whether it is closed."""

    items: list[str]
    ends: list[dict[str, Any]]
    closed: bool


def stored(log: Log, channel: str) -> Stored:
    records = log.read((channel,), 0, 1_000_000, 10**9)
    items = [record.data for record in records if record.event not in ("run", "stream-end")]
    ends = [json.loads(record.data) for record in records if record.event == "run"]
    closed = channel in log.closed((channel,))
    assert closed == any(record.event == "stream-end" for record in records)
    return Stored(items, ends, closed)


def end_of(log: Log, channel: str) -> dict[str, Any]:
    """The only end in a channel, without the run's id."""
    (end,) = stored(log, channel).ends
    return {name: value for name, value in end.items() if name != "run"}


def open_a_log(url: str, **options: Any) -> Log:
    return open_log(url, retain_events=1_000_000, retain_seconds=86_400, options=options)


class Worker:
    """One worker's runs, started. Several may share a log."""

    def __init__(self, log: Log, closing: ExitStack, **settings: Any) -> None:
        self.log = log
        self.stats = Stats()
        self.settings = Settings.from_mapping({"SSE_RUN_FLUSH": 5, **settings})
        self.runs = Runs(log, self.settings, self.stats)
        self.runs.start()
        closing.callback(self.runs.close)

    def run(self, iterable: Iterable[Any], channel: str = "a", **options: Any) -> Info:
        return self.runs.run(channel, iterable, **options)

    def state(self, info: Info) -> State:
        found = self.runs.find(info.run)
        assert found is not None
        return found.state

    def wait_for(self, info: Info, *states: State, seconds: float = 5.0) -> Info:
        """Wait until the run is in one of these states; by default, until it has ended."""

        def there() -> Info | None:
            found = self.runs.find(info.run)
            assert found is not None
            return found if (found.state in states if states else not found.is_open) else None

        return eventually(there, seconds, lambda: f"{self.runs.find(info.run)}", interval=0.005)


def records(log: Log, channel: str) -> list[Record]:
    return log.read((channel,), 0, 1_000_000, 10**9)
