"""Programs that run beside a test, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import sse

ROOT = Path(sse.__file__).parents[1]


def start(program: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    """Start a Python program with these arguments; its output is text, in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        **{"stdout": subprocess.PIPE, "text": True, **options},
    )


def run(program: str, *args: object, timeout: float = 20) -> list[str]:
    """Run one to its end, which must be a good one; return its lines."""
    with start(program, *args, stderr=subprocess.PIPE) as child:
        try:
            output, errors = child.communicate(timeout=timeout)
        except BaseException:
            child.kill()
            raise
    assert child.returncode == 0, errors
    return output.splitlines()
