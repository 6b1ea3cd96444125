"""The command from the checkout: ``python -m headwater``, with nothing of ours in its environment but what is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT

COMMAND = (sys.executable, "-W", "error", "-m", "headwater")


def environment(**env: str) -> dict[str, str]:
    """An environment in which the checkout's ``headwater`` is found from any folder."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env}


def headwater(*words: str, stdin: str = "", cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *words], input=stdin, env=environment(**env), cwd=cwd, capture_output=True, text=True, timeout=60
    )
