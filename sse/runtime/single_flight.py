"""Callers that want the same thing at the same time share one fetch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """See the module's text.

    Threat: ten thousand clients resume after the same event, and each reads the same page of the log.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}
        self._lock = threading.Lock()

    def do(self, key: Hashable, fetch: Callable[[], T]) -> T:
        """Return or raise what ``fetch`` does. Callers with the same ``key`` during the fetch get its outcome, too."""
        with self._lock:
            flight = self._flights.get(key)
            leader = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
        if leader:
            try:
                flight.value = fetch()
            except BaseException as error:
                flight.error = error
                raise
            finally:
                with self._lock:
                    del self._flights[key]
                flight.landed.set()
        else:
            flight.landed.wait()
            if flight.error is not None:
                raise flight.error
        value: T = flight.value
        return value


class _Flight:
    __slots__ = ("error", "landed", "value")

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None
