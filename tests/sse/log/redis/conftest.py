"""Redis servers and logs in them that end with their test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from sse.log.redis.engine import RedisLog
from tests.sse.log.redis_place import redis_server
from tests.support.redis_server import RedisServer


@pytest.fixture
def server(request: pytest.FixtureRequest) -> RedisServer:
    """The Redis of the whole test run, empty."""
    return redis_server(request)


@pytest.fixture
def start(closing: contextlib.ExitStack) -> Callable[..., RedisServer]:
    """``start(**config)``: a Redis of this test's own, for what others would not outlive."""
    return lambda **config: closing.enter_context(RedisServer(**config))


@pytest.fixture
def open_redis(closing: contextlib.ExitStack) -> Callable[..., RedisLog]:
    """``open_redis(server_or_url, **options)``: a worker's log."""

    def open_at(where: RedisServer | str, **options: Any) -> RedisLog:
        url = where if isinstance(where, str) else where.url
        log = RedisLog.from_url(url, **{"retain_events": 100_000, "retain_seconds": 86_400, **options})
        closing.callback(log.close)
        return log

    return open_at
