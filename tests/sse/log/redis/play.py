"""What tests of the Redis log do again and again."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from sse.events.model import Event, Record
from sse.log import Log, LogUnavailable
from sse.log.base import LogReplaced
from sse.log.redis.engine import RedisLog
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

META: Final = "{headwater}:meta"
EVENTS: Final = "{headwater}:events"
KNOWN_DOWN: Final = 0.25  # seconds in which a publisher is answered while Redis is known to be down

Start = Callable[..., RedisServer]
Open = Callable[..., RedisLog]


def events(channels: str, data: str = "x") -> list[Event]:
    return [Event(channel, data) for channel in channels]


def indexed(server: RedisServer, channel: str) -> list[int]:
    """The positions in a channel's index."""
    members = server.run("ZRANGE", f"{{headwater}}:ch:{channel}", 0, -1)
    return [struct.unpack(">Q", member)[0] for member in members]


def positions(log: Log, *channels: str) -> list[int]:
    return [record.position for record in log.read(channels or None, 0, 1 << 20, 1 << 30)]


class Tailer:
    """Follows as the hub does: again and again, from where it was; after `LogReplaced` from the new log's end."""

    def __init__(self, log: Log, closing: contextlib.ExitStack) -> None:
        self.records: list[Record] = []
        self.failures: list[LogUnavailable] = []
        self.replaced: list[LogReplaced] = []
        self.story: list[str] = []  # what came, and when it was replaced
        self.answered_at = 0.0
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        closing.callback(self.stop)
        eventually(lambda: self.answered_at)

    def _run(self) -> None:
        position = 0
        while not self._stop.is_set():
            try:
                for batch in self._log.follow(position, self._stop):
                    self.answered_at = time.monotonic()
                    if batch:
                        self.records += batch
                        self.story += [record.data for record in batch]
                        position = batch[-1].position
            except LogReplaced as error:
                self.replaced.append(error)
                self.story.append("replaced")
                position = self._log.bounds().trimmed
            except LogUnavailable as error:
                self.failures.append(error)
                self._stop.wait(0.1)

    def data(self) -> list[str]:
        return [record.data for record in self.records]

    def stop(self) -> None:
        self._stop.set()
        self._log.wake()
        self._thread.join(5)
        assert not self._thread.is_alive()


def append(log: Log, data: str, **options: Any) -> int:
    return log.append([Event("a", data)], **options)[0]


def refused(log: Log, data: str = "x") -> float:
    """Append in vain; returns how long that took."""
    started = time.monotonic()
    with pytest.raises(LogUnavailable) as refusal:
        append(log, data)
    assert 0 < refusal.value.retry_after <= 1
    return time.monotonic() - started


def until_it_works(log: Log, data: str, within: float) -> None:
    def works() -> bool:
        with contextlib.suppress(LogUnavailable):
            return append(log, data) > 0
        return False

    eventually(works, within)


def failure(log: Log) -> str:
    with pytest.raises(LogUnavailable) as refusal:
        log.bounds()
    return str(refusal.value)
