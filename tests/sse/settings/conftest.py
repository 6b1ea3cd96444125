"""Keeps the settings of the developer's own environment out of the tests."""

from __future__ import annotations

import os

import pytest

from tests.sse.settings.contract import KNOWN


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ):
        if name in KNOWN or name.startswith(("SSE_", "HEALTH_")):
            monkeypatch.delenv(name)
