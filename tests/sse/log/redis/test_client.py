"""A worker's connections: which are used, and what they say of Redis."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from sse.log import LogUnavailable
from sse.log.redis import client
from sse.log.redis.connector import Connector
from sse.log.redis.engine import RedisLog
from sse.log.redis.url import parse_url
from tests.sse.log.redis.play import EVENTS, Open, Start, append
from tests.support.redis_server import RedisServer


def idle_links(log: RedisLog, count: int) -> None:
    """Put ``count`` idle connections into the pool, each of which knows its master."""
    with contextlib.ExitStack() as stack:
        for link in [stack.enter_context(log._client._pool.lease()) for _ in range(count)]:
            log._client._join(link)


def test_connections_to_an_old_master_are_given_up_when_another_one_is_found(start: Start, open_redis: Open) -> None:
    old, new = start(), start()
    log = open_redis(old)
    append(log, "1")
    idle_links(log, 3)
    log._client._connector.target = parse_url(new.url)  # as a Sentinel that names another master now
    log._client.connect(1.0).close()  # the follower finds it
    for data in "2345":
        append(log, data)
    assert (old.run("XLEN", EVENTS), new.run("XLEN", EVENTS)) == (1, 4)


def test_follower_that_is_answered_ends_the_outage_for_publishers(server: RedisServer, open_redis: Open) -> None:
    log = open_redis(server)
    log._client.breaker.failed("gone")
    log._client.breaker._retry_at = float("inf")
    with pytest.raises(LogUnavailable, match="gone"):
        append(log, "1")
    log._client.connect(1.0).close()
    append(log, "2")


def test_time_out_of_one_question_is_that_of_no_other(server: RedisServer) -> None:
    with contextlib.closing(Connector(parse_url(server.url)).connect(timeout=5.0)) as link:
        link.call([("PING",)], timeout=0.1)
        assert link.call([("BLPOP", "nothing", "0.4")]) == [None]  # answered after 0.4 s
        assert link.idle()
        assert link.call([("BLPOP", "nothing", "0.4")]) == [None]


def test_connection_that_could_not_be_made_leaves_its_place_to_the_next(start: Start, open_redis: Open) -> None:
    server = start()
    log = open_redis(server)
    server.kill()
    for _ in range(20):
        log._client.breaker.succeeded()  # so that each tries
        with pytest.raises(LogUnavailable, match="cannot be reached"):
            append(log, "x")
    server.start()
    log._client.breaker.succeeded()
    append(log, "y")


def test_connection_whose_answer_is_still_to_come_is_not_used_again(start: Start, open_redis: Open) -> None:
    """The next request would take that answer for its own."""
    server = start()
    log = open_redis(server)

    class Killed(BaseException):  # as GreenletExit is
        pass

    server.pause()
    with pytest.raises(Killed), log._client._pool.lease() as link:
        link.send([("ECHO", "another's")])
        raise Killed
    with ThreadPoolExecutor(1) as pool:
        echo = pool.submit(log._client.one, "ECHO", "mine")
        time.sleep(0.1)  # it asks, of whom it may: before the first answer comes
        server.resume()
        assert echo.result(5) == b"mine"


def test_redis_is_examined_once_and_again_only_if_it_could_not_be(
    server: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[int] = []

    def check(*_: object) -> None:
        examined.append(1)
        if len(examined) == 1:
            raise redis.ConnectionError("told to fail")

    monkeypatch.setattr(client, "check", check)
    log = open_redis(server)  # which does not end with a Redis that cannot be asked
    for _ in range(3):
        log._client.connect(1.0).close()
    assert len(examined) == 2


def test_sentinel_that_answered_last_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is dead costs a second, and is not to cost it each time."""
    connector = Connector(parse_url("redis+sentinel://dead:1,alive:2,other:3/main"))
    asked: list[str] = []

    def ask(host: str, port: int, patience: float) -> list[bytes]:
        asked.append(host)
        if host == "dead":
            raise redis.ConnectionError("told to be dead")
        return [b"10.0.0.1", b"6379"]

    monkeypatch.setattr(connector, "_ask", ask)
    assert [connector._master(1.0) for _ in range(2)] == [("10.0.0.1", 6379)] * 2
    assert asked == ["dead", "alive", "alive"]


@pytest.mark.parametrize("closed", [True, False], ids=["a password", "none"])
def test_sentinel_may_have_the_servers_password_or_none(start: Start, open_redis: Open, closed: bool) -> None:
    master = start(requirepass="s3cret")
    lines = {
        "monitor": f"sentinel monitor main 127.0.0.1 {master.port} 1",
        "auth": "sentinel auth-pass main s3cret",
        **({"password": "requirepass s3cret"} if closed else {}),
    }
    sentinel = start(sentinel=True, **lines)
    log = open_redis(f"redis+sentinel://:s3cret@127.0.0.1:{sentinel.port}/main?replicas=0")
    assert append(log, "x")
