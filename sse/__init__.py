"""Headwater's Server-Sent Events: a Flask extension, and the gunicorn worker that makes it fast and safe.

    from sse import SSE

    sse = SSE(app)
    sse.publish("orders", '{"item":1}', event="created")

Names are imported on first use, because gunicorn's master imports :mod:`sse.settings`, and must not load modules that
gevent patches in the workers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .apps import SSE
    from .auth.hook import Grant
    from .events.items import Message
    from .events.model import Event, InvalidEvent
    from .log import ChannelClosed, IdempotencyConflict, LogError, LogRefused, LogUnavailable
    from .runs.states import RunActive, RunError, RunsFull

if __name__ == "sse" and "headwater.sse" in sys.modules:
    raise ImportError("this process has Headwater as `headwater` already: import from headwater, not from sse")

_HOMES = {
    "SSE": ".apps",
    "ChannelClosed": ".log",
    "Event": ".events.model",
    "Grant": ".auth.hook",
    "InvalidEvent": ".events.model",
    "Message": ".events.items",
    "IdempotencyConflict": ".log",
    "LogError": ".log",
    "LogRefused": ".log",
    "LogUnavailable": ".log",
    "RunActive": ".runs.states",
    "RunError": ".runs.states",
    "RunsFull": ".runs.states",
}

__all__ = [
    "SSE",
    "ChannelClosed",
    "Event",
    "Grant",
    "IdempotencyConflict",
    "InvalidEvent",
    "LogError",
    "LogRefused",
    "LogUnavailable",
    "Message",
    "RunActive",
    "RunError",
    "RunsFull",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
