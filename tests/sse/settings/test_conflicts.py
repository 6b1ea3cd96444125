"""Settings that are valid alone but conflict."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sse.settings import SettingsError
from tests.sse.settings.environ import read

PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"


CONFLICTING = [
    pytest.param({"SSE_LOG": "memory:", "WEB_CONCURRENCY": "2"}, ["SSE_LOG", "WEB_CONCURRENCY=2"], id="memory-shared"),
    pytest.param({"PORT": "8081"}, ["HEALTH_PORT=8081", "PORT=8081"], id="one-port-for-both"),
    pytest.param(
        {"SSE_AUTH": "none", "SSE_PUBLISH_KEY": "k" * 16}, ["SSE_AUTH", "SSE_PUBLISH_KEY"], id="open-with-key"
    ),
    pytest.param({"SSE_JWT_KEY": PEM}, ["SSE_JWT_ALGORITHMS", "SSE_JWT_KEY"], id="public-key-for-hs256"),
    pytest.param({"SSE_JWT_KEY": "s" * 32, "SSE_JWT_ALGORITHMS": "RS256"}, ["SSE_JWT_KEY=***"], id="secret-for-rs256"),
    pytest.param({"SSE_JWKS_FILE": "/k"}, ["SSE_JWT_ALGORITHMS", "SSE_JWKS_FILE"], id="key-set-without-algorithms"),
]


@pytest.mark.parametrize(("environ", "said"), CONFLICTING)
def test_conflicting_settings_are_refused_in_one_line(
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
def test_compatible_settings_are_accepted(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
    read(monkeypatch, **environ)
