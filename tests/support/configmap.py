"""A ConfigMap volume on disk, changed as the kubelet changes it (its AtomicWriter): files are links through ``..data``
to a directory that is never written to again; an update makes a new one and swaps the link by a rename."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path


class ConfigMapVolume:
    """``path``: where it is mounted. One key: ``settings.env``, at ``file``."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.file = path / "settings.env"
        self._numbers = count()
        path.mkdir()
        self.write(text)
        self.file.symlink_to("..data/settings.env")

    def write(self, text: str) -> None:
        """Change the content, as after ``kubectl apply`` once it has reached the node."""
        data = self.path / "..data"
        before = self.path / os.readlink(data) if data.is_symlink() else None
        new = self.path / f"..2026_11_25_20_00_00.{next(self._numbers):09}"
        new.mkdir()
        (new / "settings.env").write_text(text)
        link = self.path / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(data)
        if before is not None:
            shutil.rmtree(before)
