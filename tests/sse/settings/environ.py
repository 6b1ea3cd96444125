"""Reads settings from a given environment."""

from __future__ import annotations

import pytest

from sse.settings import Settings


def read(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    """Return the settings of this process with ``environ`` added to its environment."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environ()
