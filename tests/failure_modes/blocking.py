"""A view that blocks the event loop: work in C, which never yields to gevent."""

from __future__ import annotations

import hashlib
import time


def work(seconds: float) -> None:
    """Compute for this long without letting the loop run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 20_000)  # about 10 ms
