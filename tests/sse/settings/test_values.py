"""Single values: valid ones are parsed, and each invalid one is reported in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sse.settings import Settings, SettingsError
from tests.sse.settings.contract import CONTRACT
from tests.sse.settings.environ import read


@pytest.mark.parametrize(
    "name", [name for name in CONTRACT if Settings.model_fields[name.lower()].annotation in (int, float)]
)
@pytest.mark.parametrize("value", ["-1", "9e99", "nan", "inf", "12 seconds", "0x10"])
def test_a_value_out_of_range_or_not_a_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(monkeypatch, **{name: value})
    (line,) = refused.value.lines
    assert line.startswith(f"{name}={value!r} cannot be used: it must be a")
    assert re.search(r"from [0-9.]+ to [0-9.]+\Z", line)


BAD = [
    pytest.param("HOST", "x86_64-conda-linux-gnu", id="host-set-by-conda"),
    pytest.param("HOST", "256.1.1.1", id="host-almost-an-address"),
    pytest.param("HOST", "unix:/run/sock", id="host-a-socket-path"),
    pytest.param("HOST", "a" * 64, id="host-label-too-long"),
    pytest.param("LOG_LEVEL", "verbose", id="log-level"),
    pytest.param("LOG_FORMAT", "xml", id="log-format"),
    pytest.param("SSE_LOG", "postgres://h/db", id="log-of-unknown-scheme"),
    pytest.param("SSE_LOG", "/var/lib/headwater.db", id="log-is-a-path"),
    pytest.param("SSE_LOG", "sqlite://var/headwater.db", id="log-with-two-slashes"),
    pytest.param("SSE_LOG", "sqlite:///", id="log-without-path"),
    pytest.param("SSE_LOG", "sqlite:////", id="log-is-the-root"),
    pytest.param("SSE_LOG", "sqlite:///:memory:", id="log-in-sqlites-memory"),
    pytest.param("SSE_LOG", "memory://x", id="log-memory-with-more"),
    pytest.param("SSE_LOG", "redis://", id="redis-without-host"),
    pytest.param("SSE_LOG", "redis://:6379/0", id="redis-with-port-only"),
    pytest.param("SSE_LOG", "rediss://h:sixthousand/0", id="redis-port-no-number"),
    pytest.param("SSE_LOG", "rediss://h:0/0", id="redis-port-zero"),
    pytest.param("SSE_LOG", "redis+sentinel://a:1,b:x/main", id="sentinel-port-no-number"),
    pytest.param("SSE_LOG", "redis+sentinel://a:1,b:2", id="sentinel-without-service"),
    pytest.param("SSE_LOG", "redis://h/first", id="redis-database-no-number"),
    pytest.param("SSE_LOG", "redis://:hunter2@h/0?unknown=1", id="redis-option-unknown"),
    pytest.param("SSE_REDIS_PREFIX", "a b", id="prefix-with-blank"),
    pytest.param("SSE_REDIS_PREFIX", "x" * 65, id="prefix-too-long"),
    pytest.param("SSE_SERVER_HEADER", "a\nX-Injected: 1", id="server-header-with-line-break"),
    pytest.param("SSE_SERVER_HEADER", "h\u00e4dwater", id="server-header-not-ascii"),
    pytest.param("SSE_SERVER_HEADER", "x" * 257, id="server-header-too-long"),
    pytest.param("SSE_AUTH", "off", id="auth"),
    pytest.param("SSE_PUBLISH_KEY", "hunter2hunter2", id="publish-key-too-short"),
    pytest.param("SSE_PUBLISH_KEY", "a key with blanks in it", id="publish-key-no-header-could-carry"),
    pytest.param("SSE_JWT_KEY", "hunter2", id="jwt-key-too-short"),
    pytest.param("SSE_JWT_ALGORITHMS", "none", id="alg-none"),
    pytest.param("SSE_JWT_ALGORITHMS", "HS256,none", id="alg-none-among-others"),
    pytest.param("SSE_PUBLIC_CHANNELS", "news,a b", id="channel-with-blank"),
    pytest.param("SSE_PUBLIC_CHANNELS", "a*b", id="star-in-the-middle"),
    pytest.param("SSE_PUBLIC_CHANNELS", "c" * 129, id="channel-of-129"),
    pytest.param("SSE_CORS_ORIGINS", "example.com", id="origin-without-scheme"),
    pytest.param("SSE_CORS_ORIGINS", "https://example.com/app", id="origin-with-path"),
    pytest.param("SSE_CORS_ORIGINS", "https://user:hunter2@example.com", id="origin-with-user"),
    pytest.param("SSE_CORS_ORIGINS", "https://[::1", id="origin-with-half-an-address"),
    pytest.param("SSE_CORS_ORIGINS", "https://h:99999", id="origin-with-impossible-port"),
    pytest.param("SSE_CORS_ORIGINS", "null", id="origin-null"),
    pytest.param("SSE_TRUSTED_PROXIES", "10.0.0.0/33", id="network-too-narrow"),
    pytest.param("SSE_TRUSTED_PROXIES", "127.0.0.1,proxy.local", id="proxy-by-name"),
    pytest.param("HEALTH_READY_STRICT", "strict", id="not-a-truth-value"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_an_invalid_value_is_refused_in_one_line_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(monkeypatch, **{name: value})
    (line,) = refused.value.lines
    assert line.startswith(f"{name}=") and "must be" in line
    assert line.isprintable() and "hunter2" not in line


GOOD = [
    pytest.param("HOST", "0.0.0.0", "0.0.0.0", id="any-ipv4"),
    pytest.param("HOST", "[::1]", "::1", id="ipv6-in-brackets"),
    pytest.param("HOST", "localhost", "localhost", id="a-name"),
    pytest.param("PORT", " 9000\n", 9000, id="blanks-around"),
    pytest.param("PORT", "", 8080, id="empty-is-not-set"),
    pytest.param("PORT", "tcp://10.0.0.7:80", 8080, id="a-service-address-is-not-a-port"),
    pytest.param("HEALTH_PORT", "tcp://10.0.0.7:8081", 8081, id="a-service-named-health"),
    pytest.param("LOG_LEVEL", "WARNING", "warning", id="upper-case"),
    pytest.param("SSE_LOG", "memory:", "memory:", id="memory"),
    pytest.param("SSE_LOG", "sqlite:////data/x.db", "sqlite:////data/x.db", id="absolute-path"),
    pytest.param("SSE_LOG", "redis://u:p%40w@[::1]:6379/2", "redis://u:p%40w@[::1]:6379/2", id="redis-ipv6"),
    pytest.param(
        "SSE_LOG", "redis+sentinel://:pw@a:1,b:2/main?db=1", "redis+sentinel://:pw@a:1,b:2/main?db=1", id="sentinel"
    ),
    pytest.param("SSE_SERVER_HEADER", "", "", id="empty-server-header-removes-it"),
    pytest.param("SSE_JWT_ALGORITHMS", "ES256, EdDSA,", ("ES256", "EdDSA"), id="list-with-blanks"),
    pytest.param("SSE_PUBLIC_CHANNELS", "news,user:*,*", ("news", "user:*", "*"), id="patterns"),
    pytest.param("SSE_CORS_ORIGINS", "https://A.example:8443/,*", ("https://a.example:8443", "*"), id="origins"),
    pytest.param("SSE_TRUSTED_PROXIES", "10.1.2.3/8,::1", ("10.0.0.0/8", "::1/128"), id="networks"),
    pytest.param("SSE_READ_TIMEOUT", "0", 0.0, id="time-out-off"),
    pytest.param("SSE_HEARTBEAT", "0.5", 0.5, id="half-a-second"),
    pytest.param("HEALTH_READY_STRICT", "1", True, id="one-is-true"),
    pytest.param("SSE_PUBLISH_KEY_FILE", "/run/secrets/key", Path("/run/secrets/key"), id="path"),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_a_value_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    assert getattr(read(monkeypatch, **{name: value}), name.lower()) == expected
