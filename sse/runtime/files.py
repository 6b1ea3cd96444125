"""Reads small files that somebody else may replace: key files and the settings file."""

from __future__ import annotations

import os
import stat


def read_regular_file(path: str | os.PathLike[str], max_bytes: int) -> tuple[os.stat_result, bytes]:
    """Return a file's status and content; the status is taken first.

    Raises OSError, or ValueError for anything but a regular file (a pipe would block forever) and for a larger one.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes} bytes")
    return status, content


def reason(error: OSError | ValueError) -> str:
    """Say what was wrong, without the path."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
