"""Programs that some tests need and a developer's machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str, package: str) -> str:
    """Return the path of ``name``; without it skip the test in one line, or fail where ``CI=true``.

    A skip in CI would be a test that nobody ever runs, so there it is a failure.

    name: the executable, searched on ``PATH``.
    package: the Debian package that brings it, named in the message.
    """
    if path := shutil.which(name):
        return path
    line = f"needs the program {name!r}: apt-get install {package}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)
