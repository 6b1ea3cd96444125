"""Helps to test an app that has SSE: :mod:`headwater.sse.testing`."""

from .sse.testing import (
    Captured,
    Published,
    Received,
    Stream,
    StreamEnded,
    captured,
    in_memory,
    open_stream,
    stopping,
)

__all__ = [
    "Captured",
    "Published",
    "Received",
    "Stream",
    "StreamEnded",
    "captured",
    "in_memory",
    "open_stream",
    "stopping",
]
