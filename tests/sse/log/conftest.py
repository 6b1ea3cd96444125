"""The engines that the contract is tested against, and logs that close with their test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sse.events.model import Event, Record
from sse.log import Log, open_log
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.redis_place import redis_url
from tests.support.wait import eventually

# Each engine by the URL of a fresh place of its own. A new engine is one line here.
ENGINES: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "memory": lambda request: "memory:",
    "sqlite": lambda request: f"sqlite:///{request.getfixturevalue('tmp_path')}/log.db",
    "sqlite-sync": lambda request: f"sqlite:///{request.getfixturevalue('tmp_path')}/log.db?sync=full",
    "redis": lambda request: redis_url(request),
}

ONE_PROCESS = {"memory"}  # cannot be opened twice

@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rule's count trim at once."""
    for module in ("sse.log.rules", "sse.log.redis.upkeep"):
        monkeypatch.setattr(f"{module}.RULE_GRACE", 0.0, raising=False)


def events(*channels: str) -> list[Event]:
    return [Event(channel, f"data {n}") for n, channel in enumerate(channels)]


def fill(log: Log, channels: Iterable[str]) -> list[int]:
    """One event in each of these channels, its data being its number."""
    return log.append([Event(channel, str(n)) for n, channel in enumerate(channels)])


def data(records: Iterable[Record]) -> list[str]:
    return [record.data for record in records]


def trim_all(log: Log) -> int:
    removed = 0
    while bite := log.trim():
        assert bite <= 500
        removed += bite
    return removed


class Place:
    """Where a test's log is. ``open()`` may be called again and again: for another worker, or for a restart."""

    def __init__(self, url: str, closing: contextlib.ExitStack) -> None:
        self.url = url
        self._closing = closing

    def open(self, *, retain_events: int = 100_000, retain_seconds: float = 86_400) -> Log:
        log = open_log(self.url, retain_events=retain_events, retain_seconds=retain_seconds)
        self._closing.callback(log.close)
        return log


class Follower:
    """Follows a log in a thread and keeps what came, and how often nothing did."""

    def __init__(self, log: Log, after: int = 0) -> None:
        self.records: list[Record] = []
        self.reports = 0
        self.error: Exception | None = None
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(after,), daemon=True)
        self._thread.start()

    def _run(self, after: int) -> None:
        try:
            for batch in self._log.follow(after, self._stop):
                self.records.extend(batch)
                self.reports += 1
        except Exception as error:
            self.error = error

    def wait_for(self, count: int, timeout: float = 5.0) -> None:
        """Wait until so many records have come, and no more than these."""
        eventually(lambda: len(self.records) >= count, timeout, interval=0.001)
        assert len(self.records) == count

    def ended(self, timeout: float = 5.0) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self._log.wake()
        assert self.ended()


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, closing: contextlib.ExitStack) -> Place:
    return Place(ENGINES[request.param](request), closing)


@pytest.fixture(params=[name for name in ENGINES if name not in ONE_PROCESS])
def shared_place(request: pytest.FixtureRequest, closing: contextlib.ExitStack) -> Place:
    """A place that several workers may open, and that outlives them."""
    return Place(ENGINES[request.param](request), closing)


@pytest.fixture
def log(place: Place) -> Log:
    return place.open()


@pytest.fixture
def follow(closing: contextlib.ExitStack) -> Callable[..., Follower]:
    """``follow(log, after)`` starts a ``Follower`` that stops with the test."""

    def start(log: Log, after: int = 0) -> Follower:
        follower = Follower(log, after)
        closing.callback(follower.stop)
        return follower

    return start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a SQLite log may be."""
    return tmp_path / "log.db"


@pytest.fixture
def open_sqlite(path: Path, closing: contextlib.ExitStack) -> Callable[..., SQLiteLog]:
    """``open_sqlite()`` opens the log at ``path``, again and again."""

    def start(**options: Any) -> SQLiteLog:
        log = SQLiteLog(str(path), **{"retain_events": 100_000, "retain_seconds": 86_400, **options})
        closing.callback(log.close)
        return log

    return start
