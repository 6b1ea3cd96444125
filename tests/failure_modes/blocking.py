"""A user's view that keeps the event loop: work in C that neither yields to gevent nor knows of it."""

from __future__ import annotations

import hashlib
import time


def work(seconds: float) -> None:
    """Compute for so long without ever letting the loop run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 20_000)  # about 10 ms
