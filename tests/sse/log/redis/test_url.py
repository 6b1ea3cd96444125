from __future__ import annotations

import pytest

from sse.log import open_log
from sse.log.redis.codec import Keys
from sse.log.redis.url import RedisUrl, parse_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("redis://host", RedisUrl((("host", 6379),)), id="port and database by default"),
        pytest.param("redis://host:1/3", RedisUrl((("host", 1),), db=3), id="database in the path"),
        pytest.param("redis://host?sync=full", RedisUrl((("host", 6379),), sync=True), id="synced"),
        pytest.param("redis://host/", RedisUrl((("host", 6379),)), id="empty path"),
        pytest.param("redis://[::1]:7", RedisUrl((("::1", 7),)), id="IPv6"),
        pytest.param("redis://:p%40ss@h", RedisUrl((("h", 6379),), password="p@ss"), id="password only"),
        pytest.param("redis://u:p@ss@h", RedisUrl((("h", 6379),), username="u", password="p@ss"), id="user"),
        pytest.param(
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=0",
            RedisUrl((("h", 6379),), tls=True, ssl={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}),
            id="TLS",
        ),
        pytest.param(
            "redis+sentinel://u:p@a,b:7,[::1]/main?db=1&replicas=1",
            RedisUrl(
                (("a", 26379), ("b", 7), ("::1", 26379)),
                service="main", username="u", password="p", db=1, replicas=1,
            ),
            id="Sentinel",
        ),
        pytest.param(
            "redis+sentinel://a/main?replicas=0", RedisUrl((("a", 26379),), service="main"), id="no replica waited for"
        ),
        pytest.param(
            "rediss+sentinel://a/main",
            RedisUrl((("a", 26379),), service="main", tls=True, replicas=1),
            id="Sentinel over TLS",
        ),
    ],
)  # fmt: skip
def test_url_says(url: str, expected: RedisUrl) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("http://host", "not a Redis URL", id="scheme"),
        pytest.param("redis://", "host", id="no host"),
        pytest.param("redis://host:x", "port", id="port"),
        pytest.param("redis://host:0", "port", id="port 0"),
        pytest.param("redis://a,b/0", "host", id="two hosts without Sentinel"),
        pytest.param("redis://host/main", "database", id="database"),
        pytest.param("redis://host/-1", "database", id="negative database"),
        pytest.param("redis://secret@host", "user without a password", id="user without password"),
        pytest.param("redis://host?timeout=3", "timeout is unknown", id="option"),
        pytest.param("redis://host?sync=normal", "sync is unknown or its value", id="sync"),
        pytest.param("redis://host?replicas=many", "replicas", id="replicas"),
        pytest.param("redis://host?ssl_ca_certs=/x", "need rediss", id="TLS option without TLS"),
        pytest.param("rediss://host?ssl_cert_reqs=maybe", "ssl_cert_reqs", id="TLS option's value"),
        pytest.param("redis+sentinel://a:1", "service", id="no service"),
        pytest.param("redis+sentinel://a:1,/main", "host", id="empty Sentinel"),
    ],
)
def test_url_that_cannot_be_used_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:s3cret@host:x/",
        "redis://:s3/cret@host:x",
        "redis://:s3?cret@host:x",
        "redis://u:s3@cret@host:x",
        "s3cret@host",
        "redis+sentinel://u:s3cret@host",
    ],
)
def test_password_is_in_no_message(url: str) -> None:
    with pytest.raises(ValueError, match="must be sqlite:///") as refusal:
        open_log(url, retain_events=1, retain_seconds=1)
    assert "s3" not in str(refusal.value) and "cret" not in str(refusal.value)


def test_password_is_not_shown_with_what_a_url_says() -> None:
    target = parse_url("redis+sentinel://user:s3cret@a:1,b:2/main")
    assert "s3cret" not in repr(target) + target.where
    assert target.where == "main (Sentinel a:1,b:2)"


def test_keys_of_a_log_lie_in_one_slot() -> None:
    keys = Keys("pre")
    names = (keys.meta, keys.events, keys.claim, keys.channel("a:b"), keys.remembered("k"))
    assert len(set(names)) == 5 and all(name.startswith("{pre}:") for name in names)
    assert Keys("x:{tag}:y").meta == "x:{tag}:y:meta"


def test_key_of_any_text_and_length_has_a_short_name_of_its_own() -> None:
    keys = Keys("p")
    names = {keys.remembered(text) for text in ("", "a", "A", "é", "\udc80", "a" * 10_000, "a\0")}
    assert len(names) == 7 and max(map(len, names)) < 50


@pytest.mark.parametrize("prefix", ["", "a b", "a*", "-a", "x" * 65, "a\n"])
def test_prefix_that_would_not_be_one_word_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Keys(prefix)
