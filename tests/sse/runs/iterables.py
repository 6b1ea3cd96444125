"""Iterables that runs are given in the tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.sse.runs.parts import Worker

MakeWorker = Callable[..., Worker]


class Waiting:
    """An iterable that yields what it is given, waits until it may go on, and knows how it was closed."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.go = threading.Event()
        self.waits = threading.Event()
        self.closed: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.items
            self.waits.set()
            while not self.go.wait(0.01):
                yield "tick"
        except GeneratorExit:
            self.closed.append("GeneratorExit")
            raise
        finally:
            self.closed.append("closed")


def numbers(count: int) -> Iterator[str]:
    for number in range(count):
        yield str(number)
    return {"count": count}  # type: ignore[return-value]
