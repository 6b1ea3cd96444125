"""Headwater's Server-Sent Events: a Flask extension, and the gunicorn worker that makes it fast and safe.

    from sse import SSE

    sse = SSE(app)
    sse.publish("orders", '{"item":1}', event="created")

The names are looked up on first use: gunicorn's master imports :mod:`sse.settings`, and must not load what gevent is
to patch in the workers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sse.event import Event, InvalidEvent
    from sse.extension import SSE
    from sse.log import IdempotencyConflict, LogError, LogRefused, LogUnavailable
    from sse.responder import Message

_HOMES = {
    "SSE": "sse.extension",
    "Event": "sse.event",
    "InvalidEvent": "sse.event",
    "Message": "sse.responder",
    "IdempotencyConflict": "sse.log",
    "LogError": "sse.log",
    "LogRefused": "sse.log",
    "LogUnavailable": "sse.log",
}

__all__ = [
    "SSE",
    "Event",
    "IdempotencyConflict",
    "InvalidEvent",
    "LogError",
    "LogRefused",
    "LogUnavailable",
    "Message",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
