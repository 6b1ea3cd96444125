"""The log in a SQLite file, shared by all processes of one machine.

engine: the log itself: appends, reads, followers.
file: making, recognising and connecting to the file, and what its errors mean.
schema: the tables, and what is added to those of an older program.
place: tells whether the file was replaced by a restored backup.
group_commit: waiting publishes, and the transaction that commits a group of them.
write: inserts many rows with one statement.
query: the queries for the events of some channels.
read: pages of rows of bounded size.
follow: one follower, handed this process's commits and reading the rest.
others: tells whether another process follows the log, so that commits must be announced.
wakeup: what a follower sleeps on, and how a commit wakes it.
inotify: Linux's file notifications, as far as a wakeup needs them.
sync: what ``?sync=full`` needs beyond a sync in each commit.
channels: what the log knows of each channel.
notes: small values that all workers see.
upkeep: what is done in the background, and checkpoints of the write-ahead log.
retain: what retention no longer keeps.
erase: removes a channel.
rewrite: leaves no byte of it in the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from ..base import Log
    from ..tools import Tools


class Place(NamedTuple):
    """What a URL says. sync: publishes are acknowledged after their fsync."""

    path: str
    sync: bool


def check_url(url: str) -> Place:
    """Return what a ``sqlite:`` URL says.

    The path is all between the third slash and a question mark, unescaped, as in SQLAlchemy. ``?sync=full`` is the only
    option. Raises ``ValueError`` with the reason.
    """
    address, _, query = url.partition("?")
    scheme, slashes, path = address.partition(":///")
    if scheme != "sqlite" or not slashes or not path or path.endswith("/") or "\0" in path:
        raise ValueError("a file's path after three slashes is missing")
    if path.endswith(":memory:"):
        raise ValueError("a log in memory is called memory:")
    sync = False
    for name, value in parse_qsl(query, keep_blank_values=True):
        if (name, value) != ("sync", "full"):
            raise ValueError(f"the option {name}={value} is unknown: there is only sync=full")
        sync = True
    return Place(path, sync)


def open_url(url: str, *, retain_events: int, retain_seconds: float, options: Mapping[str, Any]) -> Log:
    """Open the log in the file that ``url`` names. No setting but the URL is its own."""
    from .engine import SQLiteLog  # only now: checking a URL must not load sqlite3

    path, sync = check_url(url)
    return SQLiteLog(path, retain_events=retain_events, retain_seconds=retain_seconds, sync=sync)


def open_tools(url: str, *, options: Mapping[str, Any]) -> Tools:
    """Return the tools for the log in the file that ``url`` names."""
    from .tools import SQLiteTools

    return SQLiteTools(check_url(url).path)
