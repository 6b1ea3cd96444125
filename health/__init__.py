"""Probes, the canary, the board of workers, metrics, and an exec probe: ``from health import Health; Health(app)``.

``Health`` is imported on first use. ``python -m health.probe`` imports this package first, and must not load Flask or
anything else, because the kubelet starts that process for every probe.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, whose import costs 5 ms of CPU

if TYPE_CHECKING:
    from .apps import Health

__all__ = ["Health"]


def __getattr__(name: str) -> object:
    if name == "Health":
        from .apps import Health

        return Health
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
