"""All extensions of this process.

A server's callable may be middleware around the Flask app, or a dispatcher with several apps, so the extensions cannot
be found from it. Instead each extension registers itself, and a server's worker asks here.

A log that was opened while the app was loaded must not cross a fork: two processes would share SQLite's connections and
Redis's sockets, and the child would lack the threads. Each process opens its own log when it next needs one.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Extension(Protocol):
    """What an extension must offer: it lets go of anything that must not cross a fork."""

    def before_fork(self) -> None: ...

    def forked(self) -> None: ...


_known: list[weakref.ref[Extension]] = []
_followers: list[Callable[[Any], object]] = []


def register(extension: Extension) -> None:
    """Add an extension whose ``init_app`` has run, and call each follower with it."""
    _known[:] = [known for known in _known if known() is not None] + [weakref.ref(extension)]
    for follower in list(_followers):
        follower(extension)


def extensions() -> list[Extension]:
    """Return all extensions of this process, in the order of their registration."""
    return [extension for known in _known if (extension := known()) is not None]


def follow(callback: Callable[[Any], object]) -> None:
    """Call back for each extension, also those that register later because their app is loaded lazily."""
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
