"""?sync=full: what is acknowledged is on Redis's disk, and a Redis that cannot say so is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sse.log import LogRefused, LogUnavailable, open_tools
from sse.log.redis import client as client_module
from tests.sse.log.redis.play import Open, Start, events, positions
from tests.support.redis_server import RedisServer
from tests.support.valkey import valkey_server

FULL = "?sync=full"


@pytest.fixture
def valkey() -> Iterator[RedisServer]:
    with RedisServer(program=valkey_server(), appendfsync="always") as server:
        yield server


def test_older_redis_is_refused_by_its_version(server: RedisServer, open_redis: Open) -> None:
    version = str(server.run("INFO", "server")["redis_version"])
    if tuple(map(int, version.split(".")[:2])) >= (7, 2):
        pytest.skip(f"this machine's Redis, {version}, has WAITAOF")
    with pytest.raises(LogRefused, match=f"is version {version}, which cannot say .* needs Redis 7.2 or newer"):
        open_redis(server.url + FULL)
    with pytest.raises(LogUnavailable, match=f"is version {version}.*7.2"):  # headwater log check
        open_tools(server.url + FULL, {"sse_redis_prefix": "headwater"}).check(lambda step: None)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param({"appendonly": "no"}, "has no append-only file: .*appendonly yes", id="no append-only file"),
        pytest.param({"appendfsync": "no"}, "has appendfsync no: .*needs appendfsync always", id="never synced"),
        pytest.param({"appendfsync": "everysec"}, "has appendfsync everysec: .*always", id="synced later"),
    ],
)
def test_redis_that_does_not_sync_is_refused(
    start: Start, open_redis: Open, config: dict[str, str], reason: str
) -> None:
    server = start(program=valkey_server(), **config)
    with pytest.raises(LogRefused, match=reason):
        open_redis(server.url + FULL)
    open_redis(server).append(events("a"))  # without the option it is good enough


def test_user_without_the_rights_is_refused(valkey: RedisServer, open_redis: Open) -> None:
    valkey.run("ACL", "SETUSER", "w", "on", ">p", "~*", "+@all", "-waitaof", "-config")
    url = valkey.url.replace("redis://", "redis://w:p@")
    with pytest.raises(LogRefused, match="does not tell its appendfsync"):
        open_redis(url + FULL)
    valkey.run("ACL", "SETUSER", "w", "+config|get")
    with pytest.raises(LogRefused, match="waitaof"):
        open_redis(url + FULL)
    valkey.run("ACL", "SETUSER", "w", "+waitaof")
    open_redis(url + FULL).append(events("a"))


def test_many_publishers_share_syncs(valkey: RedisServer, open_redis: Open) -> None:
    log = open_redis(valkey.url + FULL)
    with ThreadPoolExecutor(32) as pool:
        stored = [position for found in pool.map(log.append, [events("a")] * 64) for position in found]
    assert sorted(stored) == positions(log)
    assert log.put_note("kind", "name", "value", 10)


def test_what_the_disk_does_not_confirm_is_unknown(
    valkey: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SYNC_TIMEOUT_MS", 200)
    server = valkey
    log = open_redis(server.url + FULL)
    server.run("CONFIG", "SET", "appendfsync", "no")
    with pytest.raises(LogUnavailable, match="not on Redis's disk after 0.2 s") as failure:
        log.append(events("a"), key="k", digest=b"1")
    assert failure.value.stored == "unknown"
    with pytest.raises(LogUnavailable, match="not on Redis's disk"):  # a repetition waits for the first one, too
        log.append(events("a"), key="k", digest=b"1")
    server.run("CONFIG", "SET", "appendfsync", "always")
    assert log.append(events("a"), key="k", digest=b"1") == positions(log)
    server.run("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(LogUnavailable, match="appendonly is disabled") as failure:
        log.append(events("a"))
    assert failure.value.stored == "unknown"
