"""Settings: every one is documented and has a sane default, and a bad one says so, alone and in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sse.settings import Settings, SettingsError, redact_url, unknown_names
from sse.settings.table import table

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {name.upper() for name in Settings.model_fields}

# The contract. A name that is missing here was dropped from the class, a new one must be added on purpose.
CONTRACT = """
    HOST PORT HEALTH_PORT WEB_CONCURRENCY WORKER_CONNECTIONS SSE_CONFIG_FILE LOG_LEVEL LOG_FORMAT
    SSE_TRACE_LINES SSE_OTEL
    SSE_LOG SSE_RETAIN_EVENTS SSE_RETAIN_SECONDS SSE_REDIS_PREFIX
    SSE_RETRY SSE_HEARTBEAT SSE_MAX_STREAM_AGE SSE_REPLAY_LIMIT SSE_WINDOW_BYTES
    SSE_MAX_CHANNELS SSE_MAX_STREAMS SSE_MAX_STREAMS_PER_IP
    SSE_MAX_EVENT_BYTES SSE_MAX_BATCH_BYTES SSE_MAX_BATCH_EVENTS SSE_PUBLISH_RATE
    SSE_READ_HEADER_TIMEOUT SSE_READ_TIMEOUT SSE_WRITE_TIMEOUT SSE_IDLE_TIMEOUT
    SSE_KEEPALIVE_REQUESTS SSE_MAX_HEADER_BYTES SSE_SERVER_HEADER SSE_DRAIN_DELAY SSE_DRAIN_WINDOW
    SSE_AUTH SSE_PUBLISH_KEY SSE_PUBLISH_KEY_FILE SSE_JWT_KEY SSE_JWT_KEY_FILE SSE_JWKS_FILE
    SSE_JWT_ALGORITHMS SSE_JWT_ISSUER SSE_JWT_AUDIENCE
    SSE_PUBLIC_CHANNELS SSE_CORS_ORIGINS SSE_TRUSTED_PROXIES
    HEALTH_CANARY_MAX_AGE HEALTH_LOOP_LAG_MAX HEALTH_READY_STRICT
""".split()

PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ):
        if name in KNOWN or name.startswith(("SSE_", "HEALTH_")):
            monkeypatch.delenv(name)


def read(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environ()


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A process of its own with nothing of ours in its environment but ``environ``."""
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=path | environ,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def test_every_setting_of_the_contract_exists_and_no_other() -> None:
    assert sorted(KNOWN) == sorted(CONTRACT)


def test_the_page_in_the_docs_holds_the_table_that_the_code_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-m", "sse.settings"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    assert printed == table()
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page.endswith(printed), "it should end with what python -m sse.settings prints"


@pytest.mark.parametrize("name", CONTRACT)
def test_every_setting_has_a_line_in_the_table_with_a_reason(name: str) -> None:
    (row,) = [line for line in table().splitlines() if line.startswith(f"| `{name}` |")]
    _, _, _, unit, live, reason, _ = re.split(r"(?<!\\)\|", row)
    assert unit.strip() and len(reason.strip()) > 20
    assert live.strip() in ("", "live")


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings.from_environ()
    assert (settings.bind, settings.health_bind) == ("127.0.0.1:8080", "127.0.0.1:8081")
    assert settings.sse_log == "sqlite:///var/headwater.db"
    assert (settings.web_concurrency, settings.worker_connections, settings.sse_auth) == (1, 1000, "auto")
    assert (settings.sse_retain_events, settings.sse_retain_seconds) == (100_000, 86_400)
    assert (settings.sse_retry, settings.sse_heartbeat, settings.sse_max_stream_age) == (2000, 15, 3600)
    assert (settings.sse_replay_limit, settings.sse_window_bytes) == (10_000, 33_554_432)
    assert (settings.sse_max_event_bytes, settings.sse_max_batch_bytes) == (65_536, 16_777_216)
    assert (settings.sse_max_channels, settings.sse_max_streams) == (64, 10_000)
    assert (settings.sse_max_streams_per_ip, settings.sse_publish_rate) == (0, 0)
    assert (settings.sse_read_header_timeout, settings.sse_read_timeout) == (5, 15)
    assert (settings.sse_write_timeout, settings.sse_idle_timeout) == (10, 75)
    assert (settings.sse_keepalive_requests, settings.sse_max_header_bytes) == (1000, 16_384)
    assert (settings.sse_drain_delay, settings.sse_drain_window) == (5, 15)
    assert (settings.sse_server_header, settings.sse_redis_prefix) == ("headwater", "headwater")
    assert (settings.health_canary_max_age, settings.health_loop_lag_max) == (5, 2)
    assert settings.health_ready_strict is False


@pytest.mark.parametrize(
    "name", [name for name in CONTRACT if Settings.model_fields[name.lower()].annotation in (int, float)]
)
@pytest.mark.parametrize("value", ["-1", "9e99", "nan", "inf", "12 seconds", "0x10"])
def test_a_number_out_of_range_or_none_at_all_is_refused_by_name(
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
def test_a_bad_value_is_refused_in_one_line_that_names_it(
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


DISAGREEING = [
    pytest.param({"SSE_LOG": "memory:", "WEB_CONCURRENCY": "2"}, ["SSE_LOG", "WEB_CONCURRENCY=2"], id="memory-shared"),
    pytest.param({"PORT": "8081"}, ["HEALTH_PORT=8081", "PORT=8081"], id="one-port-for-both"),
    pytest.param(
        {"SSE_AUTH": "none", "SSE_PUBLISH_KEY": "k" * 16}, ["SSE_AUTH", "SSE_PUBLISH_KEY"], id="open-with-key"
    ),
    pytest.param({"SSE_JWT_KEY": PEM}, ["SSE_JWT_ALGORITHMS", "SSE_JWT_KEY"], id="public-key-for-hs256"),
    pytest.param({"SSE_JWT_KEY": "s" * 32, "SSE_JWT_ALGORITHMS": "RS256"}, ["SSE_JWT_KEY=***"], id="secret-for-rs256"),
    pytest.param({"SSE_JWKS_FILE": "/k"}, ["SSE_JWT_ALGORITHMS", "SSE_JWKS_FILE"], id="key-set-without-algorithms"),
]


@pytest.mark.parametrize(("environ", "said"), DISAGREEING)
def test_settings_that_cannot_stand_together_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], said: list[str]
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(monkeypatch, **environ)
    (line,) = refused.value.lines
    assert all(words in line for words in said) and line.isprintable()


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"SSE_LOG": "memory:", "WEB_CONCURRENCY": "1"}, id="memory-for-one"),
        pytest.param({"PORT": "0", "HEALTH_PORT": "0"}, id="two-free-ports"),
        pytest.param({"SSE_JWT_KEY": PEM, "SSE_JWT_ALGORITHMS": "EdDSA"}, id="public-key-with-its-algorithm"),
        pytest.param({"SSE_JWKS_FILE": "/k", "SSE_JWT_ALGORITHMS": "RS256"}, id="key-set-with-algorithms"),
    ],
)
def test_settings_that_go_together_are_accepted(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
    read(monkeypatch, **environ)


def test_an_attribute_given_in_code_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_HEARTBEAT", "3")
    assert (Settings().sse_heartbeat, Settings(sse_heartbeat=4).sse_heartbeat) == (3, 4)


def test_names_in_the_environment_are_taken_in_upper_case_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, port="9", sse_heartbeat="9") == Settings()
    assert Settings().port == 8080


def test_settings_do_not_change_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


@pytest.mark.parametrize(
    ("delay", "window", "graceful", "grace"),
    [
        pytest.param(5, 15, 25, 30, id="defaults-fit-the-30-s-of-kubernetes"),
        pytest.param(0, 0, 5, 10, id="no-drain"),
        pytest.param(0.2, 0.3, 6, 11, id="fractions-are-rounded-up"),
    ],
)
def test_the_grace_period_covers_the_whole_drain(delay: float, window: float, graceful: int, grace: int) -> None:
    settings = Settings(sse_drain_delay=delay, sse_drain_window=window)
    assert (settings.graceful_timeout, settings.termination_grace) == (graceful, grace)


def test_an_ipv6_listener_is_written_with_brackets() -> None:
    assert Settings(host="::").bind == "[::]:8080"


def test_secrets_and_passwords_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        SSE_PUBLISH_KEY="hunter2hunter2hunter2",
        SSE_JWT_KEY="hunter2" * 5,
        SSE_LOG="redis://:hunter2@h:1/0",
    )
    assert "hunter2" not in repr(settings) + str(settings)
    assert settings.sse_publish_key is not None
    assert settings.sse_publish_key.get_secret_value() == "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("redis://:pw@h:1/0", "redis://***@h:1/0", id="password"),
        pytest.param("redis://u:p@w@h:1/0", "redis://***@h:1/0", id="password-with-an-at"),
        pytest.param("redsi:pw@h", "***@h", id="no-url"),
        pytest.param("redis://h/0?password=pw&x=1", "redis://h/0?password=***&x=1", id="in-the-query"),
        pytest.param("redis://h:1/0", "redis://h:1/0", id="nothing-to-hide"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert redact_url(url) == expected


def test_a_flask_config_is_read_by_the_same_names_and_the_environment_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSE_RETRY", "77")
    config: dict[str, Any] = {
        "SSE_HEARTBEAT": 3,
        "SSE_CORS_ORIGINS": ["https://a.example"],
        "SSE_PUBLISH_KEY": None,
        "HEALTH_READY_STRICT": "yes",
        "SSE_SOMETHING_ELSE": object(),
        "PORT": "of another app",
        "DEBUG": True,
    }
    settings = Settings.from_mapping(config)
    assert isinstance(settings, Settings)
    assert (settings.sse_heartbeat, settings.sse_cors_origins) == (3.0, ("https://a.example",))
    assert (settings.health_ready_strict, settings.sse_retry, settings.port) == (True, 2000, 8080)


def test_a_bad_flask_config_is_refused_without_the_values_in_the_traceback() -> None:
    with pytest.raises(SettingsError, match=r"\ASSE_JWT_KEY=\*\*\* cannot be used") as refused:
        Settings.from_mapping({"SSE_JWT_KEY": "hunter2"})
    assert refused.value.__cause__ is None and refused.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("SSE_HARTBEAT", "5", "did you mean SSE_HEARTBEAT?", id="slip"),
        pytest.param("SSE_RETAIN_SECS", "5", "did you mean SSE_RETAIN_SECONDS?", id="shortened"),
        pytest.param("HEALTH_CANARY_AGE", "5", "did you mean HEALTH_CANARY_MAX_AGE?", id="health"),
        pytest.param("SSE_XYZZY", "5", "is not a setting; it is ignored", id="nothing-near"),
        pytest.param("SSE_PORT", "8080", "SSE_PORT is not a setting", id="port-of-ours-under-a-wrong-name"),
    ],
)
def test_a_name_that_is_no_setting_is_pointed_out(name: str, value: str, said: str) -> None:
    (line,) = unknown_names({name: value, "PATH": "/bin"}, KNOWN)
    assert line.startswith(name) and said in line and value not in line


@pytest.mark.parametrize("service", ["SSE", "HEALTH", "SSE_REDIS", "HEALTH_CHECKS"])
def test_what_kubernetes_sets_for_a_service_is_no_slip(service: str) -> None:
    links = {
        f"{service}_SERVICE_HOST": "10.0.0.7",
        f"{service}_SERVICE_PORT": "80",
        f"{service}_SERVICE_PORT_HTTP": "80",
        f"{service}_PORT": "tcp://10.0.0.7:80",
        f"{service}_PORT_80_TCP": "tcp://10.0.0.7:80",
        f"{service}_PORT_80_TCP_PROTO": "tcp",
        f"{service}_PORT_80_TCP_PORT": "80",
        f"{service}_PORT_80_TCP_ADDR": "10.0.0.7",
    }
    assert unknown_names(links, KNOWN) == []


def test_a_bad_setting_ends_the_process_with_one_line_and_status_2() -> None:
    ended = run("import settings; settings.load()", PORT="70000")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "headwater: PORT='70000' cannot be used: it must be a whole number from 0 to 65535\n"


def test_several_bad_settings_are_all_named_a_line_each() -> None:
    ended = run(
        "import settings; settings.load()",
        SSE_LOG="redis://:hunter2@h:x/0",
        SSE_PUBLISH_KEY="hunter2",
        SSE_HEARTBEAT="soon\nheadwater: forged",
        HOST="-",
    )
    assert ended.returncode == 2 and "hunter2" not in ended.stderr
    names = [line.removeprefix("headwater: ").partition("=")[0] for line in ended.stderr.splitlines()]
    assert names == ["HOST", "SSE_LOG", "SSE_HEARTBEAT", "SSE_PUBLISH_KEY"]


def test_a_slip_is_pointed_out_once_and_the_start_goes_on() -> None:
    ended = run("import settings; settings.load(); print(settings.load().port)", SSE_HARTBEAT="5", PORT="9")
    assert (ended.returncode, ended.stdout) == (0, "9\n")
    assert ended.stderr.count("SSE_HARTBEAT") == 1 and len(ended.stderr.splitlines()) == 1


def test_a_pod_beside_services_named_sse_and_health_starts_in_silence_on_its_own_ports() -> None:
    ended = run(
        "import settings; s = settings.load(); print(s.port, s.health_port)",
        HEALTH_PORT="tcp://10.0.0.7:8081",
        HEALTH_SERVICE_HOST="10.0.0.7",
        SSE_PORT="tcp://10.0.0.8:80",
        HEADWATER_PORT="tcp://10.0.0.9:80",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "8080 8081\n", "")
