"""Health's settings, from the service's ``Settings`` or from ``app.config``.

The service's settings may change while it runs, so limits are read at the point of use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from .checks.table import Limits

_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Settings(Protocol):
    """The service's settings that health reads. docs/settings.md has their meaning and units."""

    @property
    def health_port(self) -> int: ...
    @property
    def health_canary_max_age(self) -> float: ...
    @property
    def health_loop_lag_max(self) -> float: ...
    @property
    def health_ready_strict(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Config:
    """Health's own settings.

    limits: returns the present limits.
    health_port: the health listener's port; 0: gunicorn's last listener; None: the app does not say.
    """

    limits: Callable[[], Limits] = Limits
    health_port: int | None = None
    metrics_path: str = "/metrics"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        def limits() -> Limits:
            return Limits(
                canary_max_age=settings.health_canary_max_age,
                loop_lag_max=settings.health_loop_lag_max,
                strict=settings.health_ready_strict,
            )

        return cls(limits, settings.health_port)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Read the settings from ``app.config``. Without HEALTH_PORT the server's configuration says which listener is
        health's (``health.hooks.listens_on``), or there is none.

        Raises ValueError, which names the setting.
        """
        strict = mapping.get("HEALTH_READY_STRICT", False)
        if isinstance(strict, str):
            word = strict.strip().lower()
            strict = True if word in _TRUE else False if word in _FALSE else None
        if not isinstance(strict, (bool, int)):
            raise ValueError(f"HEALTH_READY_STRICT={mapping['HEALTH_READY_STRICT']!r}: true or false")
        default = Limits()
        limits = Limits(
            canary_max_age=_seconds(mapping, "HEALTH_CANARY_MAX_AGE", default.canary_max_age),
            loop_lag_max=_seconds(mapping, "HEALTH_LOOP_LAG_MAX", default.loop_lag_max),
            strict=bool(strict),
        )
        port = mapping.get("HEALTH_PORT")
        if port is not None and not (str(port).isdecimal() and int(port) <= 65535):
            raise ValueError(f"HEALTH_PORT={port!r}: a port, 0 to 65535")
        path = mapping.get("HEALTH_METRICS_PATH", "/metrics")
        if not (isinstance(path, str) and _PATH.fullmatch(path)):
            raise ValueError(f"HEALTH_METRICS_PATH={path!r}: a path such as /health/metrics")
        return cls(lambda: limits, None if port is None else int(port), path)


def _seconds(mapping: Mapping[str, Any], name: str, default: float) -> float:
    value = mapping.get(name, default)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError(f"{name}={value!r}: seconds, above 0 and up to 3600")
    return seconds
