"""docs/security.md fits the code: its settings exist, and its table has every limit."""

from __future__ import annotations

import re
from pathlib import Path

from sse.auth.configure import ROTATION_GRACE
from sse.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
TABLE = re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", TEXT, re.MULTILINE)
KNOWN = {name.upper() for name in Settings.model_fields}

#: Settings that limit what a client can take, or decide whom we believe.
LIMITING = re.compile(
    r"SSE_(MAX_|RETAIN_|READ_|WRITE_|IDLE_|KEEPALIVE_|REPLAY_|WINDOW_|PUBLISH_RATE|TRACE_LINES|TRUSTED_|CORS_|JWT_(ALG|ISS|AUD))"
    r"|WORKER_CONNECTIONS"
)


def test_the_table_has_every_limit_once_and_nothing_else() -> None:
    named = [name for name, _ in TABLE]
    assert sorted(named) == sorted(name for name in KNOWN if LIMITING.match(name))
    assert all(attack.strip() for _, attack in TABLE)


def test_every_setting_in_the_text_exists() -> None:
    mentioned = set(re.findall(r"`((?:SSE|HEALTH|WORKER|LOG)_[A-Z_]+|HOST|PORT)(?:=[^`]*)?`", TEXT))
    assert mentioned <= KNOWN, mentioned - KNOWN


def test_the_grace_period_of_key_files_is_the_codes() -> None:
    assert f"valid for {ROTATION_GRACE:g} s" in TEXT


def test_links_point_to_existing_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT + (ROOT / "SECURITY.md").read_text().replace("](docs/", "](../docs/")):
        assert (ROOT / "docs" / target).resolve().exists(), target
