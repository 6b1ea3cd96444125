"""Every setting is in the contract and in the docs, and has its default."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sse.settings import Settings
from sse.settings.table import table
from tests.sse.settings.contract import CONTRACT, KNOWN
from tests.sse.settings.environ import read
from tests.support.server import ROOT


def test_the_settings_are_those_of_the_contract() -> None:
    assert sorted(KNOWN) == sorted(CONTRACT)


def test_the_docs_contain_the_table_that_the_code_prints() -> None:
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
def test_every_setting_is_explained_in_the_table(name: str) -> None:
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
    assert (settings.sse_run_flush, settings.sse_run_grace, settings.sse_max_runs) == (20, 0, 1000)
    assert (settings.sse_server_header, settings.sse_redis_prefix) == ("headwater", "headwater")
    assert (settings.health_canary_max_age, settings.health_loop_lag_max) == (5, 2)
    assert settings.health_ready_strict is False


def test_settings_cannot_be_assigned() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


@pytest.mark.parametrize(
    ("delay", "window", "runs", "graceful", "grace"),
    [
        pytest.param(5, 15, 0, 25, 30, id="defaults-fit-the-30-s-of-kubernetes"),
        pytest.param(0, 0, 0, 5, 10, id="no-drain"),
        pytest.param(0.2, 0.3, 0, 6, 11, id="fractions-are-rounded-up"),
        pytest.param(5, 15, 120, 125, 130, id="runs-have-longer-than-the-drain"),
        pytest.param(5, 15, 10, 25, 30, id="runs-have-less-than-the-drain"),
    ],
)
def test_the_grace_period_covers_the_whole_drain_and_the_runs(
    delay: float, window: float, runs: float, graceful: int, grace: int
) -> None:
    settings = Settings(sse_drain_delay=delay, sse_drain_window=window, sse_run_grace=runs)
    assert (settings.graceful_timeout, settings.termination_grace) == (graceful, grace)


def test_an_ipv6_listener_is_written_with_brackets() -> None:
    assert Settings(host="::").bind == "[::]:8080"


def test_the_repr_hides_secrets_and_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        SSE_PUBLISH_KEY="hunter2hunter2hunter2",
        SSE_JWT_KEY="hunter2" * 5,
        SSE_LOG="redis://:hunter2@h:1/0",
    )
    assert "hunter2" not in repr(settings) + str(settings)
    assert settings.sse_publish_key is not None
    assert settings.sse_publish_key.get_secret_value() == "hunter2hunter2hunter2"
