"""Health that tells the truth: probes, the canary, the board of workers, and an exec probe.

``from health import Health; Health(app)``. The name is looked up on first use, so that ``python -m
health.probe``, which imports this package first, loads neither Flask nor anything else: the kubelet starts
that process for every probe, and its CPU time is the node's.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without the 5 ms of CPU that importing typing costs

if TYPE_CHECKING:
    from .extension import Health

__all__ = ["Health"]


def __getattr__(name: str) -> object:
    if name == "Health":
        from .extension import Health

        return Health
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
