"""The log of events: one protocol (`base`), an engine for each kind of place, chosen by URL (`open_log`)."""

from __future__ import annotations

import re

from .base import Bounds, IdempotencyConflict, Log, LogError, LogRefused, LogUnavailable, Usage
from .memory import MemoryLog
from .sqlite.engine import SQLiteLog

__all__ = [
    "Bounds",
    "IdempotencyConflict",
    "Log",
    "LogError",
    "LogRefused",
    "LogUnavailable",
    "MemoryLog",
    "SQLiteLog",
    "Usage",
    "open_log",
]

_ALLOWED = (
    "sqlite:///relative/path, sqlite:////absolute/path, memory:,"
    " redis://host:port/db, rediss://…, redis+sentinel://… or rediss+sentinel://…"
)


def open_log(url: str, *, retain_events: int, retain_seconds: float, prefix: str = "headwater") -> Log:
    """Open the log at `url`, in the process that will use it.

    retain_events: so many of the newest events are kept, unless they are older than `retain_seconds`.
    prefix: of a Redis log's keys. Raises `ValueError` for a URL or a limit that cannot be, `LogRefused` and
    `LogUnavailable` for what is found there.
    """
    if retain_events < 1 or not retain_seconds > 0:
        raise ValueError(f"retention of {retain_events} events and {retain_seconds} s: both must be above 0")
    if url == "memory:":
        return MemoryLog(retain_events=retain_events, retain_seconds=retain_seconds)
    # As in SQLAlchemy: what follows the third slash is the path, as it is.
    if url.startswith("sqlite:///") and not url.endswith(("/", ":memory:")) and "\0" not in url:
        path = url.removeprefix("sqlite:///")
        return SQLiteLog(path, retain_events=retain_events, retain_seconds=retain_seconds)
    if url.startswith(("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://")):
        from .redis.engine import RedisLog  # only now: the other engines need no client library

        return RedisLog.from_url(
            url, prefix=prefix, retain_events=retain_events, retain_seconds=retain_seconds
        )
    raise ValueError(f"log URL {_redact(url)!r}: must be {_ALLOWED}")


def _redact(url: str) -> str:
    """Without what may be a password: all that stands before the last @, and parameters that are called
    so."""
    url = re.sub(r"^([a-z0-9+.-]*:?/*).*@", r"\1***@", url, flags=re.DOTALL | re.IGNORECASE)
    return re.sub(r"(password=)[^&]*", r"\1***", url, flags=re.IGNORECASE)
