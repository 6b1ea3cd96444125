"""Findings as text for people, JSON, SARIF, and GitHub's annotations."""

from __future__ import annotations

from collections.abc import Callable

from .github import github
from .json import json
from .report import Report
from .sarif import sarif
from .text import text

FORMATS: dict[str, Callable[[Report], str]] = {"text": text, "json": json, "sarif": sarif, "github": github}

__all__ = ["FORMATS", "Report"]
