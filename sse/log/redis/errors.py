"""What redis-py's errors mean, and what helps."""

from __future__ import annotations

import re
from typing import Final

import redis

from ..base import LogUnavailable

RETRY_AFTER: Final = 1.0  # seconds; what publishers are told after an error that may pass
REFUSALS: Final = (redis.AuthenticationError, redis.exceptions.AuthorizationError)  # of a connection

# What error replies mean and what helps, by their first word.
_REPLIES: Final = {
    "OOM": "Redis is full (maxmemory): give it more, or retain less",
    "READONLY": "this Redis is a replica",
    "MISCONF": "Redis cannot save to its disk and takes no writes",
    "NOREPLICAS": "Redis has too few replicas to take writes (min-replicas-to-write)",
    "LOADING": "Redis is loading its data",
    "MASTERDOWN": "this Redis is a replica that has lost its master",
    "BUSY": "Redis is busy with a script",
    "UNBLOCKED": "this Redis has become a replica",
    "NOPERM": "the Redis user lacks a right",
    "WRONGTYPE": "another program's key is in the way",
    "FORMAT": "the log in Redis is of another version",
    "RESTORING": "the log in Redis is being imported or restored; what was interrupted must be repeated",
}
# Replies that Redis gives only before a script's first write, since it does not stop a script that has written. No
# reply to WAIT is among them. After any other error reply, events may have been stored.
NOTHING_WRITTEN: Final = frozenset({"OOM", "READONLY", "MISCONF", "NOREPLICAS", "WRONGTYPE", "FORMAT", "RESTORING"})
# NOPERM as Redis 7 and Valkey say it of a command inside a script.
_NO_RIGHT: Final = ("can't run this command", "can't access at least one of the keys", "has no permissions")


def error_word(error: Exception) -> str:
    """Return the word that tells error replies apart; for a command in a script, it may be anywhere in the text."""
    text = str(error)
    if any(words in text for words in _NO_RIGHT):
        return "NOPERM"
    words: list[str] = [getattr(error, "status_code", None) or "", *re.findall(r"\b[A-Z]{3,}\b", text)]
    return next((word for word in words if word in _REPLIES), words[0])


def wrote_nothing(error: BaseException | None) -> bool:
    """Return True if this error reply proves that a script wrote nothing."""
    return isinstance(error, redis.ResponseError) and error_word(error) in NOTHING_WRITTEN


def is_full(error: LogUnavailable) -> bool:
    """Return True if the reason is that Redis is full."""
    return isinstance(error.__cause__, redis.ResponseError) and error_word(error.__cause__) == "OOM"


def explain(error: Exception) -> str:
    """Explain a redis-py error in one line: what it means, and Redis's own words."""
    text = str(error) or type(error).__name__
    if isinstance(error, redis.TimeoutError):
        return f"Redis did not answer in time ({text})"
    if meaning := _REPLIES.get(error_word(error)):
        return f"{meaning} ({text})"
    if isinstance(error, REFUSALS):
        return f"Redis refuses the user, the password or the database ({text})"
    if isinstance(error, redis.ResponseError):
        return f"Redis refuses the command ({text})"
    return f"Redis cannot be reached ({text})"
