"""Headwater: Server-Sent Events for Flask apps, and probes for them in Kubernetes.

    from headwater import SSE, Health

    sse = SSE(app)
    Health(app)
    sse.publish("orders", '{"item":1}', event="created")

All of :mod:`headwater.sse`'s names are here, too. They are looked up on first use: the kubelet starts
``headwater.health.probe`` for each probe, and gunicorn's master must not load what gevent is to patch in the workers.

In a checkout ``headwater/sse`` and ``headwater/health`` are links to the folders beside this one, which the service
there imports as ``sse`` and ``health``. One process uses either these names or those.
"""

from __future__ import annotations

TYPE_CHECKING = False  # instead of typing.TYPE_CHECKING: importing typing costs 5 ms of CPU

if TYPE_CHECKING:
    from .health import Health
    from .sse import (
        SSE,
        Event,
        IdempotencyConflict,
        InvalidEvent,
        LogError,
        LogRefused,
        LogUnavailable,
        Message,
    )

__all__ = [
    "SSE",
    "Event",
    "Health",
    "IdempotencyConflict",
    "InvalidEvent",
    "LogError",
    "LogRefused",
    "LogUnavailable",
    "Message",
]


def __getattr__(name: str) -> object:
    if name == "Health":
        from .health.extension import Health

        return Health
    if name == "__version__":
        from .sse.version import VERSION

        return VERSION
    if name in __all__:
        from . import sse

        return getattr(sse, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
