"""A careful publisher: it repeats each publish, with an idempotency key, until the log has it."""

from __future__ import annotations

import http.client
import threading
import uuid
from types import TracebackType
from typing import Self


class Publisher:
    """Publishes numbered events, in a thread of its own, on a kept-alive connection; when an instance does not answer
    with 201, the same event with the same ``Idempotency-Key`` goes to the next one. A context manager.

    :param ports: the instances, in the order in which they are tried.
    :param every: seconds between two events.
    """

    def __init__(self, ports: list[int], channel: str, *, every: float, size: int = 40) -> None:
        self._ports = ports
        self._channel = channel
        self._every = every
        self._size = size
        self._at = 0
        self._stop = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        #: ids, in the order of the acknowledgements
        self.acknowledged: list[str] = []
        #: how often it had to go to the next instance
        self.moved = 0
        #: answers other than 201
        self.refusals: list[tuple[int, bytes]] = []
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(15)
        if self._connection is not None:
            self._connection.close()
        assert not self._thread.is_alive(), "the publisher's thread does not end"

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(self._every):
            number += 1
            key = uuid.uuid4().hex
            data = f"{number} ".ljust(self._size, "x").encode()
            while (name := self._attempt(data, key)) is None and not self._stop.wait(0.02):
                self._at = (self._at + 1) % len(self._ports)
                self.moved += 1
            if name is not None:
                self.acknowledged.append(name)

    def _attempt(self, data: bytes, key: str) -> str | None:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._ports[self._at], timeout=5)
        try:
            self._connection.request("POST", f"/events/{self._channel}", data, {"Idempotency-Key": key})
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            return None
        if response.will_close:
            self._connection.close()
            self._connection = None
        if response.status != 201:
            self.refusals.append((response.status, body))
            return None
        return body.decode().split('"id": "')[1].split('"')[0]
