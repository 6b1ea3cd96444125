"""What the Redis log does beyond the contract: its keys, its neighbours in the same Redis, what it refuses."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sse.event import Event, format_id, make_position
from sse.log import LogRefused, LogUnavailable
from sse.log._redis_check import check
from sse.log._redis_codec import Keys
from sse.log._redis_link import Pool
from sse.log.base import FOLLOW_CHARS
from sse.log.redis import RedisLog
from tests.sse.log.conftest import Follower
from tests.sse.log.redis_place import redis_server
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

META, EVENTS, CLAIM = "{headwater}:meta", "{headwater}:events", "{headwater}:trim"
HOUR = make_position(3_600_000)
Open = Callable[..., RedisLog]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> RedisServer:
    return redis_server(request)


@pytest.fixture
def open_redis(server: RedisServer) -> Iterator[Open]:
    """``open_redis(url)`` opens a log that closes with the test: by default at `server`."""
    with contextlib.ExitStack() as closing:

        def start(url: str = "", **options: Any) -> RedisLog:
            options = {"retain_events": 100_000, "retain_seconds": 86_400, **options}
            log = RedisLog.from_url(url or server.url, **options)
            closing.callback(log.close)
            return log

        yield start


def events(channels: str, data: str = "x") -> list[Event]:
    return [Event(channel, data) for channel in channels]


def indexed(server: RedisServer, channel: str) -> list[int]:
    members = server.run("ZRANGE", f"{{headwater}}:ch:{channel}", 0, -1)
    return [struct.unpack(">Q", member)[0] for member in members]


def positions(log: RedisLog, *channels: str) -> list[int]:
    return [record.position for record in log.read(channels or None, 0, 1 << 20, 1 << 30)]


# --- Keys and ids -------------------------------------------------------------------------------------------


def test_workers_that_come_first_together_agree_on_the_creation(open_redis: Open) -> None:
    assert len({open_redis().bounds() for _ in range(5)}) == 1


def test_full_millisecond_carries_into_the_next(server: RedisServer, open_redis: Open) -> None:
    log = open_redis()
    future = (time.time_ns() // 10**6) + 10**7
    server.run("HSET", META, "last", f"{future}-{2**20 - 2}")
    found = log.append(events("abab"))
    assert found == list(range(make_position(future, 2**20 - 1), make_position(future + 1, 3)))
    assert positions(log) == found and positions(log, "a") == found[::2]
    assert log.floor(["a", "b"], 0, 2) == found[1]


def test_new_ids_lie_above_all_that_a_worker_has_seen_of_a_redis_that_was_emptied(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis()
    future = (time.time_ns() // 10**6) + 10**7  # as if that server's clock had been ahead of the next one's
    server.run("HSET", META, "last", f"{future}-0")
    (seen,) = log.append(events("a"))
    server.run("FLUSHALL")
    bounds = log.bounds()
    assert bounds.oldest is None and bounds.trimmed == bounds.latest > seen
    server.run("FLUSHALL")
    assert log.append(events("a"))[0] > bounds.latest


def test_batch_is_one_call_whatever_its_size(server: RedisServer, open_redis: Open) -> None:
    log = open_redis()
    log.append(events("a"))
    server.run("CONFIG", "RESETSTAT")
    found = log.append([Event(f"c{i % 3000}", str(i)) for i in range(10_000)])
    assert server.run("INFO", "commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert found == list(range(found[0], found[0] + 10_000)) == positions(log)[1:]


def test_replay_of_a_channel_touches_no_other_channels_events(server: RedisServer, open_redis: Open) -> None:
    log = open_redis()
    log.append(events("b" * 3000))
    mine = log.append(events("aaa"))
    log.append(events("b" * 3000))
    server.run("CONFIG", "RESETSTAT")
    assert positions(log, "a") == mine
    calls = {name: stat["calls"] for name, stat in server.run("INFO", "commandstats").items()}
    assert calls["cmdstat_xrange"] == 3 and "cmdstat_xrevrange" not in calls


def test_index_is_trimmed_with_the_stream_and_leaves_no_empty_keys(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis(retain_events=100)
    log.append([Event(f"once{i}", "x") for i in range(1000)])
    kept = log.append(events("ab" * 50))
    while log.trim():
        pass
    assert indexed(server, "a") == kept[::2] and indexed(server, "b") == kept[1::2]
    assert sorted(server.run("KEYS", "{headwater}:ch:*")) == [b"{headwater}:ch:a", b"{headwater}:ch:b"]
    assert server.run("XLEN", EVENTS) == 100


def test_bite_of_trimming_ends_with_a_megabyte(open_redis: Open) -> None:
    log = open_redis(retain_events=1)
    for _ in range(3):
        log.append(events("a" * 20, "x" * 65536))
    assert log.trim() == 16


def test_one_worker_trims_at_a_time(server: RedisServer, open_redis: Open) -> None:
    first, second = open_redis(retain_events=1), open_redis(retain_events=1)
    first.append(events("a" * 2000))
    assert first.trim() == 500 and second.trim() == 0 and first.trim() == 500
    server.run("DEL", CLAIM)  # as if the first had been silent for three seconds
    assert second.trim() == 500 and first.trim() == 0


def test_floor_of_many_channels_is_exact(open_redis: Open) -> None:
    log = open_redis()
    found = [p for n in range(8) for p in log.append([Event(f"c{i * i % 23}", "x") for i in range(n, n + 700)])]
    channels = [f"c{i}" for i in (0, 1, 2, 3, 4, 6, 8)]
    mine = positions(log, *channels)
    assert 2000 < len(mine) < len(found)
    for keep in (0, 1, 499, 500, 501, 1999, len(mine) - 1):
        assert log.floor(channels, 0, keep) == mine[-keep - 1]
    assert log.floor(channels, mine[99], len(mine) - 101) == mine[100]
    assert log.floor(channels, 0, len(mine)) is None


def test_what_a_follower_is_given_at_once_is_bounded(open_redis: Open) -> None:
    log = open_redis()
    for _ in range(20):
        log.append(events("a" * 40, "x" * 30_000) + events("a" * 200))
    sizes, count = [], 0
    for batch in log.follow(0, threading.Event()):
        count += len(batch)
        sizes.append(sum(len(record.data) for record in batch))
        if count == 20 * 240:
            break
    assert max(sizes) <= FOLLOW_CHARS and len(sizes) > 20


# --- Neighbours in the same Redis -----------------------------------------------------------------------------


def test_logs_with_different_prefixes_do_not_see_each_other(open_redis: Open) -> None:
    one, other = open_redis(prefix="one"), open_redis(prefix="other", retain_events=1)
    (mine,) = one.append(events("a"), key="k", digest=b"1")
    theirs = other.append(events("aaa"), key="k", digest=b"2")
    assert other.trim() == 2
    assert positions(one) == positions(one, "a") == [mine]
    assert positions(other) == positions(other, "a") == theirs[-1:]


@pytest.mark.parametrize(
    ("command", "left"),
    [
        pytest.param(("XTRIM", EVENTS, "MAXLEN", 2), 2, id="trimmed"),
        pytest.param(("XTRIM", EVENTS, "MAXLEN", 0), 0, id="trimmed to nothing"),
        pytest.param(("DEL", EVENTS), 0, id="deleted"),
    ],
)
def test_what_somebody_else_trims_is_reported_and_the_index_is_tidied(
    server: RedisServer, open_redis: Open, command: tuple[Any, ...], left: int
) -> None:
    log = open_redis()
    found = log.append(events("ababa"))
    server.run(*command)
    for _ in range(2):  # what the first look finds is not forgotten by the second
        bounds = log.bounds()
        assert bounds.oldest == (found[-left] if left else None)
        assert found[-left - 1] <= bounds.trimmed < (found[-left] if left else found[-1] + 1)
        assert bounds.latest == found[-1]
    assert positions(log, "a", "b") == found[len(found) - left :]
    assert log.trim() == 0
    assert indexed(server, "a") + indexed(server, "b") == sorted(found[len(found) - left :], reverse=True)
    more = log.append(events("a"))
    assert log.bounds().trimmed == bounds.trimmed and positions(log, "a", "b") == found[5 - left :] + more


def test_hole_that_somebody_makes_in_the_middle_is_reported(server: RedisServer, open_redis: Open) -> None:
    log = open_redis()
    found = log.append(events("aaaa"))
    server.run("XDEL", EVENTS, format_id(found[2]))
    if b"max-deleted-entry-id" in server.run("XINFO", "STREAM", EVENTS):  # Redis 6.2 cannot tell
        assert log.bounds().trimmed == found[2]
    assert positions(log, "a") == [found[0], found[1], found[3]]


def test_entries_of_a_foreign_writer_are_left_out_and_stop_nobody(
    server: RedisServer, open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_redis()
    follower = Follower(log)
    before = log.append(events("a"))
    future = (time.time_ns() // 10**6) + 10**7
    for number, fields in enumerate(
        (("x", "y"), ("c", "a"), ("c", "a", "d", b"\xff"), ("c", "a", "d", "x", "e", "t", "r", "soon"))
    ):
        server.run("XADD", EVENTS, f"{future}-{number}", *fields)
    server.run("XADD", EVENTS, f"{future}-{2**20 + 5}", "c", "a", "d", "x")
    after = log.append(events("a"))
    assert after[0] >= make_position(future + 1)
    eventually(lambda: [record.position for record in follower.records] == before + after)
    assert positions(log) == before + after and "not of this service" in caplog.text
    follower._stop.set()
    log.wake()
    assert follower.ended() and follower.error is None
    short = open_redis(retain_events=1)
    assert short.trim() == 6 and positions(short) == after


def test_log_that_lost_its_creation_marker_keeps_its_events_and_counts_on(
    server: RedisServer, open_redis: Open
) -> None:
    log = open_redis()
    found = log.append(events("aba"))
    server.run("DEL", META)
    bounds = open_redis().bounds()
    assert bounds.oldest == found[0] > bounds.trimmed and bounds.latest > found[-1]
    more = log.append(events("a"))
    assert more[0] > bounds.latest and positions(log) == found + more


def test_foreign_key_in_the_place_of_an_index_stores_nothing(server: RedisServer, open_redis: Open) -> None:
    log = open_redis()
    server.run("SET", "{headwater}:ch:b", "mine")
    with pytest.raises(LogUnavailable, match="another program's key"):
        log.append(events("ab"))
    assert positions(log) == positions(log, "a") == []
    assert len(log.append(events("aa"))) == 2


def test_scripts_that_redis_forgot_are_sent_again(server: RedisServer, open_redis: Open) -> None:
    log = open_redis()
    server.run("SCRIPT", "FLUSH")
    log.append(events("a"))
    server.run("SCRIPT", "FLUSH")
    assert log.bounds().oldest is not None


def test_wrong_idea_of_redis_clock_corrects_itself(open_redis: Open) -> None:
    log = open_redis()
    log._offset_ms = (log._offset_ms or 0) - 3_600_000  # as if Redis's clock had been set forward
    assert len(log.append(events("a"))) == 1 and len(positions(log)) == 1
    log._offset_ms = 0.0
    assert len(log.append(events("a"), key="k")) == 1


# --- What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        pytest.param([("SET", META, "x")], rf"key {META} is a string", id="marker of another type"),
        pytest.param([("LPUSH", EVENTS, "x")], rf"key {EVENTS} is a list", id="stream of another type"),
        pytest.param([("HSET", META, "format", "2")], "format 2, this program knows 1", id="another format"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(
    server: RedisServer, open_redis: Open, commands: list[tuple[str, ...]], message: str
) -> None:
    for command in commands:
        server.run(*command)
    dump = server.run("DUMP", commands[0][1])
    with pytest.raises(LogRefused, match=message):
        open_redis()
    assert server.run("DUMP", commands[0][1]) == dump


class FakeLink:
    def __init__(self, info: str) -> None:
        self._info = info.encode()

    def call(self, commands: list[tuple[str, ...]]) -> list[bytes]:
        return [self._info if command[0] == "INFO" else b"none" for command in commands]

    def run(self, *_: object) -> list[int]:
        return [0, 0]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        pytest.param("redis_version:6.0.16", "is version 6.0.16; needed is 6.2", id="too old"),
        pytest.param("redis_version:2.8.24", "is version 2.8.24", id="much too old"),
        pytest.param("# Server\r\nother:1", "version unknown", id="not Redis"),
        pytest.param(
            "redis_version:7.0.0\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru",
            "may evict any key",
            id="evicts",
        ),
        pytest.param("redis_version:6.2.0", None, id="old enough"),
        pytest.param("redis_version:10.0.0", None, id="two digits"),
        pytest.param("server_name:valkey\r\nredis_version:7.2.4\r\nvalkey_version:9.0.1", None, id="Valkey"),
        pytest.param("redis_version:7.0.0\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru", None, id="no limit"),
        pytest.param(
            "redis_version:7.0.0\r\nmaxmemory:9\r\nmaxmemory_policy:volatile-lru", None, id="evicts what expires"
        ),
    ],
)
def test_redis_that_cannot_hold_a_log_is_refused(info: str, message: str | None) -> None:
    with pytest.raises(LogRefused, match=message) if message else contextlib.nullcontext():
        check(FakeLink(info), Keys("p"), "here")  # type: ignore[arg-type]


def test_redis_without_an_append_only_file_is_warned_of(
    open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    open_redis()
    assert "append-only" not in caplog.text
    with RedisServer(appendonly="no") as forgetful, caplog.at_level(logging.WARNING):
        open_redis(forgetful.url).close()
    assert "no append-only file" in caplog.text


NEEDED = (
    "+info +type +time +evalsha +eval +xadd +xread +xrange +xrevrange +xtrim +xinfo +exists +zadd +zlexcount "
    "+zrangebylex +zrevrangebylex +zrevrange +zremrangebylex +hset +hmget +set +get +del +pexpire +scan +ping"
)


def test_user_needs_these_rights_and_only_for_these_keys(server: RedisServer, open_redis: Open) -> None:
    server.run("ACL", "SETUSER", "sse", "on", ">s3cret", "resetkeys", "~{headwater}:*", "-@all", *NEEDED.split())
    log = open_redis(f"redis://sse:s3cret@127.0.0.1:{server.port}/0", retain_events=1)
    follower = Follower(log)
    log.append(events("abab"), key="k")
    server.run("XTRIM", EVENTS, "MAXLEN", 3)
    assert log.floor(["a", "b"], 0, 1) and log.newest(["a"], 1, 1) and log.newest(None, 1, 1)
    assert log.trim() == 2
    assert eventually(lambda: len(follower.records) >= 3)
    with pytest.raises(LogRefused, match="lacks a right"):
        open_redis(f"redis://sse:s3cret@127.0.0.1:{server.port}/0", prefix="other")
    follower._stop.set()
    log.wake()
    assert follower.ended()


@pytest.mark.parametrize("missing", ["info", "evalsha", "zadd", "xtrim", "pexpire"])
def test_user_without_a_right_is_refused_at_once(server: RedisServer, open_redis: Open, missing: str) -> None:
    rights = [right for right in NEEDED.split() if right != f"+{missing}"]
    server.run("ACL", "SETUSER", "half", "reset", "on", ">s3cret", "~*", *rights)
    with pytest.raises(LogRefused, match="lacks a right") as refusal:
        open_redis(f"redis://half:s3cret@127.0.0.1:{server.port}/0")
    assert missing in str(refusal.value).lower() and "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("credentials", ["sse:wrong", ":wrong", "nobody:wrong"])
def test_wrong_password_is_refused_and_not_repeated(
    server: RedisServer, open_redis: Open, credentials: str
) -> None:
    with pytest.raises(LogRefused, match="refuses the user, the password") as refusal:
        open_redis(f"redis://{credentials}@127.0.0.1:{server.port}/0")
    assert "wrong" not in str(refusal.value).lower().replace("wrongpass", "")


def test_missing_password_and_missing_database_are_refused(server: RedisServer, open_redis: Open) -> None:
    with pytest.raises(LogRefused, match="DB index"):
        open_redis(f"redis://127.0.0.1:{server.port}/99")
    with RedisServer(requirepass="s3cret") as closed, pytest.raises(LogRefused, match="password"):
        open_redis(closed.url)


def test_tls_checks_the_servers_certificate(tmp_path: Path, server: RedisServer, open_redis: Open) -> None:
    if b"tls-port" not in server.run("CONFIG", "GET", "tls-port"):
        pytest.skip("this redis-server was built without TLS")
    certificate, key = self_signed(tmp_path)
    tls: Any = {"tls_cert_file": certificate, "tls_key_file": key, "tls_ca_cert_file": certificate}
    with RedisServer(tls=True, tls_auth_clients="no", **tls) as encrypted:
        log = open_redis(f"{encrypted.tls_url}?ssl_ca_certs={certificate}")
        follower = Follower(log)
        log.append(events("a"))
        eventually(lambda: follower.records)
        log.close()
        assert follower.ended(1.0)
        with pytest.raises(LogUnavailable, match="CERTIFICATE_VERIFY_FAILED|certificate"):
            open_redis(encrypted.tls_url).bounds()


def self_signed(directory: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (directory / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return str(directory / "cert.pem"), str(directory / "key.pem")


def test_connections_are_not_used_on_after_a_fork(open_redis: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Pool = open_redis()._client._pool
    shelf = pool._shelf()
    assert shelf.links
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert pool._shelf() is not shelf and pool._shelf().links == []
