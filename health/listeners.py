"""Which of a server's listeners is health's: decided here, by the address that each is bound to.

The request's own word does not count. gunicorn makes SERVER_PORT from the Host header where the listener is a Unix
socket, and from the PROXY header where there is one: both are the client's choice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

# What socket.getsockname() gives: (host, port, ...), or the path of a Unix socket.
Name: TypeAlias = tuple[Any, ...] | str | bytes

_WILDCARDS = ("0.0.0.0", "::")


@lru_cache(maxsize=16)  # asked for each request
def of_health(names: tuple[Name, ...], port: int | None) -> frozenset[Name]:
    """The listeners that answer probes and nothing else; none where one listener serves everything.

    :param names: all listeners, in the order of gunicorn's ``bind``.
    :param port: HEALTH_PORT; 0 stands for the last listener, None for no listener of health's own.
    """
    if port is None or len(names) < 2:
        return frozenset()
    if port == 0:
        return frozenset(names[-1:])
    found = frozenset(name for name in names if isinstance(name, tuple) and name[1] == port)
    return found if len(found) < len(names) else frozenset()


def local_name(environ: Mapping[str, Any]) -> Name | None:
    """The address at which this request's connection was accepted; None when it cannot be told."""
    sock = environ.get("gunicorn.socket")
    if sock is not None:
        try:
            name: Name = sock.getsockname()
        except OSError:  # the connection is gone
            return None
        return name
    port = str(environ.get("SERVER_PORT", ""))
    return (environ.get("SERVER_NAME"), int(port)) if port.isdecimal() else None


def accepted_by(local: Name | None, names: Collection[Name]) -> bool:
    """Was a connection with this local address accepted by one of these listeners?"""
    if local in names:
        return True
    if not isinstance(local, tuple):
        return False
    return any(isinstance(name, tuple) and name[1] == local[1] and name[0] in _WILDCARDS for name in names)
