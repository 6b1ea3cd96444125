"""Long polls: requests that wait for the next event of a subscription, without a stream.

A poll waits as a member of its group, so the hub wakes it as it wakes a generator stream, and counts it as a listener.
It ends with the drain, and when the streams of its subject are ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .group import Subscription
from .hub import Hub
from .pull import HANG_UP_CHECK
from .stream import CloseReason, State


class Poll:
    """A waiting request, which the worker has admitted (``Admission.admit_poll``): a context manager.

    owner, request_id, opened: as of a stream.
    hung_up: tells whether the client has left; None if the server cannot tell.
    """

    def __init__(
        self,
        hub: Hub,
        subscription: Subscription,
        client: str,
        *,
        owner: str,
        request_id: str,
        opened: float,
        hung_up: Callable[[], bool] | None,
    ) -> None:
        self.client = client
        self.owner = owner
        self.request_id = request_id
        self.opened = opened
        self.state = State.LIVE
        self._hub = hub
        self._hung_up = hung_up
        self._woken = threading.Event()
        self.ended = False  # by the hub
        self.group = hub.join(subscription)

    def __enter__(self) -> Self:
        with self._hub.lock:
            self.group.waiters[self] = None
            self._hub.pulling.add(self)
            if (reason := self._hub.control.why_not(self)) is not None:
                self.end(reason)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hub = self._hub
        with hub.lock:
            self.group.waiters.pop(self, None)
            hub.pulling.discard(self)
            hub.groups.leave(self.group)
        self.state = State.CLOSED
        hub.admission.release_poll(self.client)

    def wake(self) -> None:
        self._woken.set()

    def push(self, wire: bytes) -> None:
        """Ignore a block that is in no log."""

    def end(self, reason: CloseReason) -> None:
        self.ended = True
        self._woken.set()

    def wait(self, deadline: float) -> bool:
        """Wait until there may be something to read; False if there is no reason to wait any longer.

        deadline: monotonic seconds.
        """
        while not self._woken.is_set():
            left = deadline - time.monotonic()
            if left <= 0 or self._over():
                return False
            self._woken.wait(left if self._hung_up is None else min(left, HANG_UP_CHECK))
        self._woken.clear()
        return not self._over()

    def _over(self) -> bool:
        return self.ended or self._hub.admission.draining or (self._hung_up is not None and self._hung_up())
