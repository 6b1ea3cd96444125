"""A log of each engine, by its URL, and a Redis for those who need one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from sse.log import Log, open_log
from tests.support.redis_server import RedisServer

_databases = count()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer(databases=256) as server:
        yield server


def fresh(kind: str, redis: Callable[[], RedisServer], folder: Path) -> str:
    """The URL of a log of this engine that is not there yet: a file, or a database of the Redis."""
    if kind == "sqlite":
        return f"sqlite:///{folder}/log{next(_databases)}.db"
    server, number = redis(), next(_databases) % 256
    with closing(server.client(db=number)) as client:
        client.flushdb()
    return f"redis://127.0.0.1:{server.port}/{number}"


@pytest.fixture
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """``new(engine)``: the URL of a log that is not there yet."""
    return lambda kind: fresh(kind, lambda: request.getfixturevalue("redis"), tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, new: Callable[[str], str]) -> str:
    """The URL of a log that is not there yet, of each engine."""
    return new(request.param)


@pytest.fixture
def opened() -> Iterator[Callable[[str], Log]]:
    """``opened(url)``: the log, which is closed with the test."""
    with ExitStack() as stack:

        def open_it(url: str) -> Log:
            log = open_log(url, retain_events=1_000_000, retain_seconds=86_400)
            stack.callback(log.close)
            return log

        yield open_it
