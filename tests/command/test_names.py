"""``sse`` and ``headwater.sse`` are the same files; one process uses one of the names, or is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.command.run import environment
from tests.support.server import ROOT


@pytest.mark.parametrize(
    ("code", "told"),
    [
        pytest.param("import sse, headwater", "headwater serve --app", id="ours-second"),
        pytest.param("from headwater import SSE; from sse import SSE", "import from headwater, not from sse", id="ours-first"),
    ],
)
def test_a_process_with_both_names_is_refused(code: str, told: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "ImportError: this process has Headwater" in done.stderr and told in done.stderr


def test_the_example_under_the_checkouts_configuration_says_what_to_run() -> None:
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "examples.own_app:app"]
    done = subprocess.run(command, env=environment(PORT="0", HEALTH_PORT="0"), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "headwater serve --app" in done.stdout + done.stderr
