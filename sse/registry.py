"""The extensions of this process, whatever stands around their apps.

The callable that a server is given may be middleware around the Flask app, or a dispatcher with several: no look at it
finds them all. So each extension registers itself, and a server's worker asks here.

A log that the app used while it was loaded must not cross a fork: SQLite's connections and Redis's sockets would be
used by two processes, and their threads by none. Both sides open a log of their own when they next need one.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .extension import SSE

_known: list[weakref.ref[SSE]] = []
_followers: list[Callable[[SSE], object]] = []


def register(extension: SSE) -> None:
    """Add an extension that has its app; whoever follows is told at once."""
    _known[:] = [known for known in _known if known() is not None] + [weakref.ref(extension)]
    for follower in list(_followers):
        follower(extension)


def extensions() -> list[SSE]:
    """All extensions of this process, in the order in which they came."""
    return [extension for known in _known if (extension := known()) is not None]


def follow(callback: Callable[[SSE], object]) -> None:
    """Call back for each extension that there is, and for each that comes later (an app that is loaded lazily)."""
    for extension in extensions():
        callback(extension)
    _followers.append(callback)


def _before_fork() -> None:
    for extension in extensions():
        extension.before_fork()


def _in_child() -> None:
    _followers.clear()
    for extension in extensions():
        extension.forked()


os.register_at_fork(before=_before_fork, after_in_child=_in_child)
