"""Which Redis is refused, and with which words."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from sse.log import LogRefused, LogUnavailable, RetainRule
from sse.log.redis import url as url_module
from sse.log.redis.check import check
from sse.log.redis.codec import Keys
from sse.log.redis.url import RedisUrl
from tests.sse.log.conftest import Follower, trim_all
from tests.sse.log.redis.play import EVENTS, META, Open, events
from tests.support.ports import ReservedPort
from tests.support.redis_server import RedisServer
from tests.support.server import ROOT
from tests.support.wait import eventually


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
        open_redis(server)
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
        pytest.param("redis_version:7.0.0\r\nmaxmemory:0\r\nmaxmemory_policy:volatile-ttl", None, id="no limit, too"),
        pytest.param("redis_version:7.0.0\r\nmaxmemory:9\r\nmaxmemory_policy:noeviction", None, id="refuses when full"),
        pytest.param(
            "redis_version:7.0.0\r\nmaxmemory:9\r\nmaxmemory_policy:volatile-lru",
            "evict idempotency keys, .* set maxmemory-policy noeviction",
            id="evicts what expires",
        ),
    ],
)
def test_redis_that_cannot_hold_a_log_is_refused(info: str, message: str | None) -> None:
    with pytest.raises(LogRefused, match=message) if message else contextlib.nullcontext():
        check(FakeLink(info), Keys("p"), RedisUrl())  # type: ignore[arg-type]


def test_repetition_is_stored_once_however_full_redis_is_or_that_redis_is_refused(
    server: RedisServer, open_redis: Open
) -> None:
    """Under volatile-lru the keys went first: the same request was stored again and again."""
    server.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    try:
        open_redis(server).close()  # no limit: nothing is evicted
        server.run("CONFIG", "SET", "maxmemory", "100mb")
        with pytest.raises(LogRefused, match="volatile-lru.*noeviction"):
            open_redis(server)
    finally:
        server.run("CONFIG", "SET", "maxmemory", "0")
        server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_policy_that_is_changed_later_is_said_once_and_so_is_its_end(
    server: RedisServer, open_redis: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_redis(server)

    def told() -> list[str]:
        """What one look more has to say."""
        caplog.clear()
        log._upkeep._watch._look_at = 0
        for _ in range(3):
            log.trim()
        return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]

    caplog.set_level(logging.INFO, "headwater.log.redis")
    assert told() == []
    try:
        server.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        assert told() == []
        server.run("CONFIG", "SET", "maxmemory", "100mb")
        (line,) = told()
        assert line.startswith("ERROR") and "evict idempotency keys" in line
        assert told() == []
        server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        (line,) = told()
        assert "lose events unnoticed" in line
        server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
        (line,) = told()
        assert line.startswith("INFO") and "evicts nothing any more" in line
    finally:
        server.run("CONFIG", "SET", "maxmemory", "0")
    # Not with every bite: that would be one more command a second from each worker.
    monkeypatch.setattr(log._upkeep._watch, "look", lambda link: pytest.fail("looked again at once"))
    log.trim()


def test_node_of_a_cluster_is_named_as_one(closing: contextlib.ExitStack, open_redis: Open) -> None:
    buses = [closing.enter_context(contextlib.closing(Bus())) for _ in range(2)]
    options = {"cluster_enabled": "yes", "cluster_node_timeout": 500}
    first, second = (
        closing.enter_context(RedisServer(**options, cluster_port=bus.port.number))  # type: ignore[arg-type]
        for bus in buses
    )
    with pytest.raises(LogRefused, match=rf"127.0.0.1:{first.port} is a node of a Redis Cluster .*is on nowhere now"):
        open_redis(first)
    second.run("CLUSTER", "ADDSLOTS", *range(16384))
    eventually(lambda: b"cluster_state:ok" in second.run("CLUSTER", "INFO"), 10)
    with pytest.raises(LogRefused, match=rf"127.0.0.1:{second.port} is a node of a Redis Cluster .*is on this one"):
        open_redis(second)
    first.run("CLUSTER", "MEET", "127.0.0.1", second.port, buses[1].port.number)
    eventually(lambda: b"cluster_state:ok" in first.run("CLUSTER", "INFO"), 20)
    with pytest.raises(LogRefused, match=rf"127.0.0.1:{first.port} is a node .*is on 127.0.0.1:{second.port}"):
        open_redis(first)


class Bus:
    """A port for what the nodes of a cluster say to each other."""

    def __init__(self) -> None:
        self.port = ReservedPort()
        self.close = self.port.release


def test_sentinel_is_named_as_one(closing: contextlib.ExitStack, open_redis: Open, server: RedisServer) -> None:
    monitor = f"sentinel monitor main 127.0.0.1 {server.port} 1"
    sentinel = closing.enter_context(RedisServer(sentinel=True, monitor=monitor))
    with pytest.raises(LogRefused, match=rf"is a Sentinel: .*redis\+sentinel://127.0.0.1:{sentinel.port}/"):
        open_redis(sentinel)


def test_redis_without_an_append_only_file_is_warned_of(
    server: RedisServer, open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    open_redis(server)
    assert "append-only" not in caplog.text
    with RedisServer(appendonly="no") as forgetful, caplog.at_level(logging.WARNING):
        open_redis(forgetful).close()
    assert "no append-only file" in caplog.text


NEEDED = (
    "+info +type +time +ping +scan +eval +evalsha +exists +del +unlink +rename +set +get +pexpire +pttl "
    "+xadd +xdel +xlen +xread +xrange +xrevrange +xtrim +xinfo +xsetid "
    "+zadd +zcard +zlexcount +zrange +zrangebylex +zrangebyscore +zrem +zremrangebylex +zrevrange +zrevrangebylex "
    "+zscan +hdel +hexists +hget +hgetall +hincrby +hlen +hmget +hset"
)


def test_user_needs_these_rights_and_only_for_these_keys(server: RedisServer, open_redis: Open) -> None:
    server.run("ACL", "SETUSER", "sse", "on", ">s3cret", "resetkeys", "~{headwater}:*", "-@all", *NEEDED.split())
    log = open_redis(f"redis://sse:s3cret@127.0.0.1:{server.port}/0", retain_events=1)
    follower = Follower(log)
    log.append(events("abab"), key="k")
    follower.wait_for(4)  # a follower that trimming overtakes is told, and ends
    server.run("XTRIM", EVENTS, "MAXLEN", 3)
    assert log.floor(["a", "b"], 0, 1) and log.newest(["a"], 1, 1) and log.newest(None, 1, 1)
    assert log.trim() == 2
    assert log.gone(["a", "b*"], 0) and log.newest(["*"], 1, 1) and len(log.channels()) == 1
    log.append(events("a"), close=["b"])
    assert log.closed(["b"])
    log.retain(1, 1000, [RetainRule("a", 0, 0.001)])
    eventually(log.trim)
    assert log.erase("b").through
    trim_all(log)
    assert log.put_note("kind", "name", "value", 10) and log.notes("kind")
    log.drop_note("kind", "name")
    with pytest.raises(LogRefused, match="lacks a right"):
        open_redis(f"redis://sse:s3cret@127.0.0.1:{server.port}/0", prefix="other")
    follower._stop.set()
    log.wake()
    assert follower.ended()


def test_rights_are_the_documented_ones() -> None:
    documented = (ROOT / "docs" / "security.md").read_text().partition("ACL SETUSER")[2].partition("(One command")[0]
    assert set(re.findall(r"\+\w+", documented)) == set(NEEDED.split())
    listed = (url_module.__doc__ or "").partition("these commands: ")[2].partition(";")[0]
    assert {f"+{name}" for name in listed.split()} == set(NEEDED.split())


@pytest.mark.parametrize("missing", ["info", "evalsha", "zadd", "xtrim", "xsetid", "hincrby", "pexpire"])
def test_user_without_a_right_is_refused_at_once(server: RedisServer, open_redis: Open, missing: str) -> None:
    rights = [right for right in NEEDED.split() if right != f"+{missing}"]
    server.run("ACL", "SETUSER", "half", "reset", "on", ">s3cret", "~*", *rights)
    with pytest.raises(LogRefused, match="lacks a right") as refusal:
        open_redis(f"redis://half:s3cret@127.0.0.1:{server.port}/0")
    assert missing in str(refusal.value).lower() and "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("credentials", ["sse:wrong", ":wrong", "nobody:wrong"])
def test_wrong_password_is_refused_and_not_repeated(server: RedisServer, open_redis: Open, credentials: str) -> None:
    with pytest.raises(LogRefused, match="refuses the user, the password") as refusal:
        open_redis(f"redis://{credentials}@127.0.0.1:{server.port}/0")
    assert "wrong" not in str(refusal.value).lower().replace("wrongpass", "")


def test_missing_password_and_missing_database_are_refused(server: RedisServer, open_redis: Open) -> None:
    with pytest.raises(LogRefused, match="DB index"):
        open_redis(f"redis://127.0.0.1:{server.port}/99")
    with RedisServer(requirepass="s3cret") as closed, pytest.raises(LogRefused, match="password"):
        open_redis(closed)


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
