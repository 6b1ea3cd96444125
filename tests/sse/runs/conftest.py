"""A worker's runs over each engine that needs no server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from sse.log import Log
from tests.sse.runs.parts import Worker, open_a_log


@pytest.fixture
def log(url: str, closing: ExitStack) -> Log:
    opened = open_a_log(url)
    closing.callback(opened.close)
    return opened


@pytest.fixture
def make_worker(log: Log, closing: ExitStack) -> Callable[..., Worker]:
    """``make_worker(**settings)``: another worker on the test's log."""
    return lambda **settings: Worker(log, closing, **settings)


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()
