"""The package as users get it: built once per session, and installed in a virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.server import ROOT

#: All that the build reads. It runs in a copy, so that what it writes (build/, *.egg-info) stays out of the checkout.
SOURCES = ("sse", "health", "headwater", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


class Built(NamedTuple):
    """The results of ``python -m build``: the wheel from the sdist, and the sdist from the checkout."""

    wheel: Path
    sdist: Path


def build(directory: Path) -> Built:
    """Build in ``directory``. Without the tools, skip in one line, or fail under ``CI=true``."""
    source = directory / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            # Without the links in headwater/: pip unpacks a zip of the repository without them.
            left_out = ("sse", "health") if name == "headwater" else ()
            ignore = shutil.ignore_patterns("__pycache__", *left_out)
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if done.returncode and ("No module named build" in done.stderr or "Missing dependencies" in done.stdout + done.stderr):
        line = "needs build and setuptools: .venv/bin/pip install -r requirements-dev.txt"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = directory.glob("*.whl"), directory.glob("*.tar.gz")
    return Built(wheel, sdist)


class Installed:
    """A fresh virtual environment with one distribution of ours, and the tests' own dependencies."""

    def __init__(self, directory: Path, distribution: Path) -> None:
        self.bin = directory / "bin"
        venv.create(directory, symlinks=True)
        self.packages = Path(sysconfig.get_path("purelib", vars={"base": str(directory)}))
        (self.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check", "install"]
        done = subprocess.run(
            [*pip, "--quiet", "--no-deps", "--no-index", "--no-build-isolation", str(distribution)],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def headwater(self) -> str:
        """Return the command's path."""
        return str(self.bin / "headwater")

    def run(self, *words: str, cwd: Path, **options: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to its end."""
        return subprocess.run(
            [str(self.bin / words[0]), *words[1:]], cwd=cwd, capture_output=True, text=True, timeout=60, **options
        )
