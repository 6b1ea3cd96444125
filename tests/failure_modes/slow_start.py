"""Headwater whose start takes SLOW_START seconds, before the first listener of its worker answers."""

from __future__ import annotations

import os
import time

time.sleep(float(os.environ["SLOW_START"]))

from wsgi import app  # noqa: E402  (the delay is the point)

__all__ = ["app"]
