"""The environment that settings are read from."""

from __future__ import annotations

import pytest

from sse.settings import Settings


def read(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    """The settings of this process with ``environ`` in its environment."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environ()
