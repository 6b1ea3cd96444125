"""The version: pyproject.toml takes it from here, and so do ``headwater --version``, /openapi.json and /metrics."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.2.0"
