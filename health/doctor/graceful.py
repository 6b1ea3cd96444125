"""How long a server may take to end after SIGTERM, if the manifest shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .place import Place
from .servers import Server
from .units import FOREVER, seconds, setting_seconds

_SPRING_PHASE = "SPRING_LIFECYCLE_TIMEOUT_PER_SHUTDOWN_PHASE"

#: Variables that show how an app ends.
_ENDING = re.compile(r"(DRAIN|SHUTDOWN|GRACEFUL|GRACE_PERIOD)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Graceful:
    """How long a server waits for open streams."""

    seconds: float  # FOREVER without a limit
    what: str  # `--graceful-timeout 120`, for the arithmetic
    place: Place | None  # None for the app's own variables: it knows what it does


def graceful(server: Server) -> Graceful | None:
    """Return a server's graceful time; None if nothing shows it."""
    return _of_command(server) or _of_spring(server) or _of_app(server) or _of_option(server)


def drains_itself(server: Server) -> bool:
    """Return True if the app does more at SIGTERM than its server would, or if that cannot be seen."""
    return any(_ENDING.search(name) for name in server.container.env) or not server.container.env_known


def _of_command(server: Server) -> Graceful | None:
    """Return gunicorn's, uvicorn's and hypercorn's own option, or their default if all settings can be seen."""
    name, default = {
        "gunicorn": ("graceful-timeout", 30.0),
        "uvicorn": ("timeout-graceful-shutdown", None),
        "hypercorn": ("graceful-timeout", 3.0),
    }.get(server.name, ("", None))
    limit = server.number(name)
    if limit is not None:
        return Graceful(limit, f"--{name} {limit:g}", server.place)
    if name in server.options:
        return None
    if default is None or not server.settled or (server.name == "hypercorn" and "config" in server.options):
        return None
    return Graceful(default, f"{server.name}'s default graceful time-out of {default:g}", server.place)


def _of_spring(server: Server) -> Graceful | None:
    env = server.container.env
    if env.get("SERVER_SHUTDOWN", "").lower() != "graceful" and _SPRING_PHASE not in env:
        return None
    phase = setting_seconds(_SPRING_PHASE, env.get(_SPRING_PHASE, "30s"))
    if phase is None:
        return None
    return Graceful(phase, f"Spring's shutdown phase of {phase:g}", server.container.env_places.get(_SPRING_PHASE))


def _of_app(server: Server) -> Graceful | None:
    """Return the time by the app's variables. Several for draining add up (a delay, then a window); others limit one
    wait.
    """
    drains, longest, drain_names, longest_name = 0.0, 0.0, [], ""
    for name, value in server.container.env.items():
        own = setting_seconds(name, value) if _ENDING.search(name) else None
        if own is None or own == FOREVER:
            continue
        if "DRAIN" in name.upper():
            drains += own
            drain_names.append(name)
        elif own > longest:
            longest, longest_name = own, name
    total = max(drains, longest)
    names = drain_names if drains >= longest else [longest_name]
    return Graceful(total, f"{' + '.join(names)} {total:g}", None) if total else None


def _of_option(server: Server) -> Graceful | None:
    for name, option in server.options.items():
        if re.search(r"(shutdown|drain|grace)", name) and (limit := seconds(option.value)):
            return Graceful(limit, f"--{name} {limit:g}", option.place)
    return None
