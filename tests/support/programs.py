"""Programs that some tests need and a developer's machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str, package: str) -> str:
    """Return the path of ``name``; without it skip the test in one line, or fail under ``CI=true``.

    In CI a skipped test would never run anywhere, so it fails.

    name: the executable, searched on ``PATH``.
    package: its Debian package, named in the message.
    """
    if path := shutil.which(name):
        return path
    line = f"needs the program {name!r}: apt-get install {package}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)
