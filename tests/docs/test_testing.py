"""docs/testing.md: its app and its tests run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text()


def test_the_pages_tests_pass(tmp_path: Path) -> None:
    files = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert {"shop.py", "conftest.py", "test_publishing.py", "test_streams.py"} == files.keys()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tests = sum(text.count("\ndef test_") for text in files.values())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0 and f"{tests} passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "shop.db").exists()
