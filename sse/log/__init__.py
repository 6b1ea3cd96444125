"""The log of events: one protocol (``base``), and one table of engines, chosen by the scheme of a URL.

An engine is a package or module here, with two functions for its row of ``ENGINES``: one that checks a URL without
loading a client library, and one that opens the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from ..runtime.redaction import redact_url
from . import memory, redis, sqlite
from .base import (
    Bounds,
    ChannelClosed,
    ChannelInfo,
    Erased,
    IdempotencyConflict,
    Log,
    LogError,
    LogRefused,
    LogUnavailable,
    RetainRule,
    Usage,
)
from .tools import Tools

__all__ = [
    "ALLOWED_URLS",
    "ENGINES",
    "Bounds",
    "ChannelClosed",
    "ChannelInfo",
    "Engine",
    "Erased",
    "IdempotencyConflict",
    "Log",
    "LogError",
    "LogRefused",
    "LogUnavailable",
    "RetainRule",
    "Tools",
    "Usage",
    "check_url",
    "open_log",
    "open_tools",
]


class Open(Protocol):
    """Opens a log at a checked URL; ``options`` as for ``open_log``."""

    def __call__(self, url: str, *, retain_events: int, retain_seconds: float, options: Mapping[str, Any]) -> Log: ...


class OpenTools(Protocol):
    """Returns the tools for a log at a checked URL."""

    def __call__(self, url: str, *, options: Mapping[str, Any]) -> Tools: ...


class Engine(NamedTuple):
    """One kind of place that events are kept in.

    schemes: of its URLs.
    allowed: the forms of its URLs, for people.
    shared: can several processes use one log together?
    check: raises ``ValueError`` with the reason, and without the URL, which may hold a password.
    tools: None if nothing can be done to such a log from outside of its process.
    """

    schemes: tuple[str, ...]
    allowed: str
    shared: bool
    check: Callable[[str], object]
    open: Open
    tools: OpenTools | None


ENGINES: Final = (
    Engine(
        ("sqlite",),
        "sqlite:///relative/path, sqlite:////absolute/path",
        True,
        sqlite.check_url,
        sqlite.open_url,
        sqlite.open_tools,
    ),
    Engine(
        ("redis", "rediss", "redis+sentinel", "rediss+sentinel"),
        "redis://host:port/0, rediss://…, redis+sentinel://…",
        True,
        redis.check_url,
        redis.open_url,
        redis.open_tools,
    ),
    Engine(("memory",), "or memory: (one worker)", False, memory.check_url, memory.open_url, None),
)
ALLOWED_URLS: Final = ", ".join(engine.allowed for engine in ENGINES)

_BY_SCHEME: Final = {scheme: engine for engine in ENGINES for scheme in engine.schemes}


def check_url(url: str) -> Engine:
    """Find the engine for ``url``. Raises ``ValueError`` with the reason, and without the URL."""
    scheme, colon, _ = url.partition(":")
    if not colon:
        raise ValueError("no scheme")
    if scheme not in _BY_SCHEME:
        raise ValueError("unknown scheme")
    engine = _BY_SCHEME[scheme]
    engine.check(url)
    return engine


def open_log(url: str, *, retain_events: int, retain_seconds: float, options: Mapping[str, Any] | None = None) -> Log:
    """Open the log at ``url``, in the process that will use it.

    retain_events: how many of the newest events to keep.
    retain_seconds: how long to keep an event.
    options: settings by their attribute names; each engine reads its own.

    Raises ``ValueError`` for a URL or a limit that cannot be used, ``LogRefused`` and ``LogUnavailable`` for what is
    found there.
    """
    if retain_events < 1 or not retain_seconds > 0:
        raise ValueError(f"retention of {retain_events} events and {retain_seconds} s: both must be above 0")
    engine = _engine(url)
    return engine.open(url, retain_events=retain_events, retain_seconds=retain_seconds, options=options or {})


def open_tools(url: str, options: Mapping[str, Any] | None = None) -> Tools:
    """Return the tools for the log at ``url``. options: as for ``open_log``.

    Raises ``ValueError`` for a URL that cannot be used, or whose log cannot be reached from another process.
    """
    engine = _engine(url)
    if engine.tools is None:
        raise ValueError(f"log URL {redact_url(url)!r}: such a log is in its own process only")
    return engine.tools(url, options=options or {})


def _engine(url: str) -> Engine:
    try:
        return check_url(url)
    except ValueError as error:
        raise ValueError(f"log URL {redact_url(url)!r} ({error}): must be {ALLOWED_URLS}") from None
