"""A worker's runs over each engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from sse.log import Log
from tests.sse.log.redis_place import redis_url
from tests.sse.runs.parts import Worker, open_a_log


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh log of each engine."""
    if request.param == "redis":
        return redis_url(request)
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/h.db"


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
