"""The service of an earlier commit, taken out of the repository's history."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.server import ROOT


class Earlier(NamedTuple):
    """commit: all of its 40 digits; paths: what the service needs of it."""

    commit: str
    paths: tuple[str, ...]


_PARTS: Final = ("sse", "health", "app.py", "wsgi.py", "settings.py", "gunicorn.conf.py")

#: The first commit whose service ran, with both engines. Its log is the oldest there is.
OLDEST: Final = Earlier("927b5deec46097b1ae19ff7a5f6647d61727cc71", _PARTS)
#: The last commit before channels could be closed, erased and read by patterns.
PREVIOUS: Final = Earlier("fd49b67c81e1731ce9d4b160d8412d5c03ea7b28", _PARTS)


def checked_out(earlier: Earlier, folder: Path) -> Path:
    """Put an earlier commit's service into ``folder`` and return that. Skips in a clone without the commit."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "cat-file", "-e", f"{earlier.commit}^{{commit}}"], capture_output=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"this clone does not have commit {earlier.commit[:7]}: git fetch --unshallow")
    packed = subprocess.run([*git, "archive", earlier.commit, *earlier.paths], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder
