"""The reference server in Go (bench/peers/go), compiled on first use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.server import ROOT, Server

SOURCE = ROOT / "bench" / "peers" / "go"


def build_go_peer(go: str) -> Path:
    """Compile it into the user's cache, unless this source was compiled before, and return the binary.

    go: the compiler.
    Raises AssertionError with the compiler's message.
    """
    digest = hashlib.sha256()
    for path in sorted(SOURCE.glob("*.go")) + [SOURCE / "go.mod"]:
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with contextlib.suppress(OSError):
        (cache / "headwater").mkdir(parents=True, exist_ok=True)
    folder = cache / "headwater" if os.access(cache / "headwater", os.W_OK) else Path(tempfile.gettempdir())
    binary = folder / f"go-peer-{digest.hexdigest()[:16]}"
    if not binary.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / "peer"
            # No cgo: the net package would need a C compiler.
            built = subprocess.run(
                [go, "build", "-o", str(fresh), "."],
                cwd=SOURCE,
                env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
                capture_output=True,
                text=True,
                timeout=110,
            )
            assert built.returncode == 0, f"go build: {built.stderr}"
            fresh.replace(binary)  # atomic: two test runs may build at once
    return binary


class GoPeer(Server):
    """``Server`` for the reference: the same settings and ports, no workers.

    binary: from ``build_go_peer``.
    """

    def __init__(self, binary: Path, **env: Any) -> None:
        super().__init__(command=(str(binary),), **env)

    @property
    def worker_count(self) -> int:
        return 0
