"""A publisher that records every attempt, and what was acknowledged.

Each event has its own ``Idempotency-Key`` and is sent again until it is acknowledged, whatever the answer was: a proxy's
502 or a broken connection leave open whether it was stored, and with the key a repetition is safe.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.ledger import position
from tests.support.wait import eventually

PAUSE = 0.05  # seconds between two attempts at the same event
HOPELESS = frozenset({400, 401, 403, 404, 413, 415, 422})  # repeating does not help
ANSWER_TIMEOUT = 6.0  # seconds; above Redis's 2 s and its connection's 1 s


class Attempt(NamedTuple):
    """status: 0 for none (the connection broke or timed out). Times: ``time.monotonic``."""

    began: float
    took: float
    status: int
    retry_after: str | None


class Acknowledged(NamedTuple):
    id: str
    channel: str
    data: str
    began: float
    at: float

    @property
    def position(self) -> tuple[int, int]:
        return position(self.id)


class Recorder:
    """Publishes in a thread while the context lasts.

    :param rate: events a second, if the answers are fast enough.
    :param channels: in turn.
    :param size: bytes of data added to each event's name.
    :param headers: called before every attempt (a key may be replaced).
    :param repeats: statuses after which it repeats although that usually does not help.
    """

    def __init__(
        self,
        port: int | Callable[[], int],
        *,
        rate: float = 50.0,
        channels: Sequence[str] = ("a", "b"),
        size: int = 0,
        headers: Callable[[], Mapping[str, str]] = dict[str, str],
        repeats: Collection[int] = (),
    ) -> None:
        self._port: Callable[[], int] = (lambda: port) if isinstance(port, int) else port
        self._interval = 1 / rate
        self._channels = channels
        self._padding = "." * size
        self._headers = headers
        self._hopeless = HOPELESS.difference(repeats)
        self._name = uuid.uuid4().hex[:8]
        self._stop = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self.attempts: list[Attempt] = []
        self.acknowledged: list[Acknowledged] = []
        self.failed: str | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if error is None:
            self.finish()

    def progress(self, more: int = 12, timeout: float = 15.0) -> None:
        """Wait until this many more events were acknowledged."""
        goal = len(self.acknowledged) + more
        eventually(
            lambda: len(self.acknowledged) >= goal or self.failed, timeout, lambda: f"no progress: {self.attempts[-3:]}"
        )
        assert self.failed is None, self.failed

    def finish(self, timeout: float = 20.0) -> list[Acknowledged]:
        """Wait until the current event is acknowledged, and return all in the log's order."""
        self._stop.set()
        self._thread.join(timeout)
        assert self.failed is None, self.failed
        assert not self._thread.is_alive(), f"an event is never acknowledged: {self.attempts[-3:]}"
        return sorted(self.acknowledged, key=lambda entry: entry.position)

    def since(self, moment: float, until: float = float("inf")) -> list[Attempt]:
        """Return the attempts that began after that time."""
        return [attempt for attempt in self.attempts if moment <= attempt.began < until]

    # ── the thread ──────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        number, due = 0, time.monotonic()
        while not self._stop.is_set() and self.failed is None:
            self._publish(number)
            number += 1
            due = max(due + self._interval, time.monotonic() - 1)  # at most a second behind
            self._stop.wait(max(0.0, due - time.monotonic()))
        self._drop()

    def _publish(self, number: int) -> None:
        channel = self._channels[number % len(self._channels)]
        data, first = f"{self._name}-{number}{self._padding}", time.monotonic()
        while True:
            began = time.monotonic()
            status, retry_after, body = self._attempt(channel, data, f"{self._name}-{number}")
            now = time.monotonic()
            self.attempts.append(Attempt(began, now - began, status, retry_after))
            if status in self._hopeless:
                self.failed = f"{status} {body!r}"
                return
            if status == 201:
                self.acknowledged.append(Acknowledged(json.loads(body)["id"], channel, data, first, now))
                return
            time.sleep(PAUSE)

    def _attempt(self, channel: str, data: str, key: str) -> tuple[int, str | None, bytes]:
        headers = {"Idempotency-Key": key, **self._headers()}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=ANSWER_TIMEOUT)
            self._connection.request("POST", f"/events/{channel}", data, headers)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            self._drop()
            return 0, None, b""
        return answer.status, answer.getheader("Retry-After"), body

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
