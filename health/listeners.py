"""Tell which of a server's listeners is health's, by the address that each is bound to.

Threat: SERVER_PORT cannot be trusted. gunicorn takes it from the Host header on a Unix socket, and from a PROXY header;
the client chooses both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

# The environ's key by which a server says whether health's listener accepted the request (bool). Without it, this
# module compares addresses.
SAID = "health.listener"

# What socket.getsockname() gives: (host, port, ...), or the path of a Unix socket.
Name: TypeAlias = tuple[Any, ...] | str | bytes

_WILDCARDS = ("0.0.0.0", "::")


@lru_cache(maxsize=16)  # called for each request
def of_health(names: tuple[Name, ...], port: int | None) -> frozenset[Name]:
    """Return the listeners that answer only probes; none if one listener serves everything.

    names: all listeners, in the order of gunicorn's ``bind``.
    port: HEALTH_PORT; 0: the last listener; None: health has no listener of its own.
    """
    if port is None or len(names) < 2:
        return frozenset()
    if port == 0:
        return frozenset(names[-1:])
    found = frozenset(name for name in names if isinstance(name, tuple) and name[1] == port)
    return found if len(found) < len(names) else frozenset()


def local_name(environ: Mapping[str, Any]) -> Name | None:
    """Return the local address of this request's connection, or None if it is unknown."""
    sock = environ.get("gunicorn.socket")
    if sock is not None:
        try:
            name: Name = sock.getsockname()
        except OSError:  # the connection is closed
            return None
        return name
    port = str(environ.get("SERVER_PORT", ""))
    return (environ.get("SERVER_NAME"), int(port)) if port.isdecimal() else None


def accepted_by(local: Name | None, names: Collection[Name]) -> bool:
    """Tell whether one of these listeners accepted a connection with this local address."""
    if local in names:
        return True
    if not isinstance(local, tuple):
        return False
    return any(isinstance(name, tuple) and name[1] == local[1] and name[0] in _WILDCARDS for name in names)
