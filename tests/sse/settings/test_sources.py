"""Sources of settings: the environment, code and a Flask configuration; and names that are not settings."""

from __future__ import annotations

from typing import Any

import pytest

from sse.settings import Settings, SettingsError, unknown_names
from tests.sse.settings.contract import KNOWN
from tests.sse.settings.environ import read


def test_an_attribute_given_in_code_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_HEARTBEAT", "3")
    assert (Settings().sse_heartbeat, Settings(sse_heartbeat=4).sse_heartbeat) == (3, 4)


def test_the_environment_counts_in_upper_case_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, port="9", sse_heartbeat="9") == Settings()
    assert Settings().port == 8080


def test_a_flask_config_is_read_instead_of_the_environment(
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


def test_an_invalid_flask_config_is_refused_without_values_in_the_traceback() -> None:
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
def test_an_unknown_name_is_reported(name: str, value: str, said: str) -> None:
    (line,) = unknown_names({name: value, "PATH": "/bin"}, KNOWN)
    assert line.startswith(name) and said in line and value not in line


@pytest.mark.parametrize("service", ["SSE", "HEALTH", "SSE_REDIS", "HEALTH_CHECKS"])
def test_variables_of_a_kubernetes_service_are_not_reported(service: str) -> None:
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
