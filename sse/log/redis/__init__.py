"""The log in a Redis Stream, shared by any number of pods.

engine: the log itself.
append: storing events.
read: pages of one, some or all channels, and counting.
follow: a follower's connection, and noticing that the log was replaced.
channels: which channels there are, which are closed, what was trimmed of each.
erase: erasing a channel to the last byte.
load: fills an empty log with given records.
tools: what one does to a whole log from outside of the service.
upkeep: trimming by retention, and what else one worker does for all.
client: calls Redis on a pooled connection, through the breaker, and translates its errors.
pool: a few connections for short requests.
connector: opens connections, also to the master that Sentinels name.
link: one connection.
errors: what redis-py's errors mean.
breaker: makes requests fail at once while Redis is known to be down.
check: whether this Redis can hold the log, asked before the first use and now and then later.
scripts: the Lua scripts, and what is kept under which key.
codec: names of keys, ids, index members and stream entries. Pure.
url: the forms and options of a Redis URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .url import parse_url as check_url

if TYPE_CHECKING:
    from ..base import Log
    from ..tools import Tools

__all__ = ["check_url", "open_tools", "open_url"]

_PREFIX = "sse_redis_prefix", "headwater"


def open_url(url: str, *, retain_events: int, retain_seconds: float, options: Mapping[str, Any]) -> Log:
    """Open the log at ``url``. options: ``sse_redis_prefix``, the first part of every key.

    Raises as ``RedisLog.from_url`` does.
    """
    from .engine import RedisLog  # only now: the other engines need no client library

    prefix = options.get(*_PREFIX)
    return RedisLog.from_url(url, prefix=prefix, retain_events=retain_events, retain_seconds=retain_seconds)


def open_tools(url: str, *, options: Mapping[str, Any]) -> Tools:
    """Return the tools for the log at ``url``. options: as for ``open_url``."""
    from .tools import RedisTools

    return RedisTools(check_url(url), options.get(*_PREFIX))
