"""docs/upgrade.md against the code."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sse.log.base import LogRefused
from sse.log.sqlite.engine import SQLiteLog
from sse.log.sqlite.file import FORMAT
from sse.settings import Settings
from tests.k8s.test_helm import CHART
from tests.support.server import ROOT

TEXT = (ROOT / "docs" / "upgrade.md").read_text()


def test_a_log_of_a_later_format_is_refused_in_the_words_of_the_page(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    SQLiteLog(str(path), retain_events=10, retain_seconds=10).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(LogRefused) as refusal:
        SQLiteLog(str(path), retain_events=10, retain_seconds=10)
    (words,) = re.findall(r"`(has format .+?)`", TEXT)
    assert words in str(refusal.value)


def test_the_grace_period_after_sigterm_is_the_codes() -> None:
    settings = Settings()
    rest = settings.termination_grace - settings.sse_drain_delay - settings.sse_drain_window
    assert f"`SSE_DRAIN_DELAY` + `SSE_DRAIN_WINDOW` + {rest:g} s" in TEXT


def test_the_settings_that_are_named_exist_and_so_does_the_chart() -> None:
    names = set(re.findall(r"`(SSE_[A-Z_]+)`", TEXT))
    assert names and names - {name.upper() for name in Settings.model_fields} == set()
    assert CHART.is_dir() and "helm upgrade" in TEXT
