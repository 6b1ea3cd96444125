"""A Redis for the tests of the log: one server for the whole run, emptied for each test."""

from __future__ import annotations

import pytest

from tests.support.redis_server import RedisServer

_SERVER = pytest.StashKey[RedisServer]()


def redis_server(request: pytest.FixtureRequest) -> RedisServer:
    """The server of this test run, empty. Skips, or fails where ``CI=true``, when there is no redis-server."""
    config = request.config
    server = config.stash.get(_SERVER, None)
    if server is None:
        server = config.stash[_SERVER] = RedisServer()
        config.add_cleanup(server.close)
        server.start()
    server.run("FLUSHALL")
    return server


def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty Redis."""
    return redis_server(request).url
