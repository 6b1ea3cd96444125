"""What is looked at once, before the first use of a Redis: can it hold this log, and may we?"""

from __future__ import annotations

import logging
import re
from typing import Final

import redis

from sse.log._redis_codec import Keys
from sse.log._redis_link import Link, error_word, explain
from sse.log._redis_scripts import CHECK
from sse.log.base import LogRefused

logger = logging.getLogger("headwater.log.redis")

OLDEST: Final = (6, 2)  # XTRIM MINID, exclusive ranges in XRANGE

# Conditions that pass: not a reason to refuse for good.
_PASSING: Final = ("OOM", "READONLY", "LOADING", "MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY", "TRYAGAIN")


def check(link: Link, keys: Keys, where: str, replicas: int = 0) -> None:
    """Raise `LogRefused` when this Redis cannot hold the log: too old, evicting, a right is missing, foreign keys.

    Other errors of redis-py pass through: they say that it cannot be told now.
    """
    try:
        sections = link.call([("INFO", section) for section in ("server", "memory", "persistence")])
        info = _parse(b"\n".join(sections).decode("utf-8", "replace"))
        _check_version(info, where)
        _check_memory(info, where)
        kinds = [kind.decode() for kind in link.call([("TYPE", keys.meta), ("TYPE", keys.events)])]
        for key, kind, wanted in zip((keys.meta, keys.events), kinds, ("hash", "stream"), strict=True):
            if kind not in (wanted, "none"):
                raise LogRefused(f"Redis {where}: the key {key} is a {kind}, not a {wanted}: it is not ours")
        link.run(CHECK, [keys.meta, keys.events, keys.scratch], ["0-0"])
        if replicas:
            link.call([("WAIT", 0, 1)])  # returns at once; may this user?
    except (redis.ResponseError, redis.AuthenticationError) as error:
        if error_word(error) in _PASSING:
            raise
        raise LogRefused(f"Redis {where}: {explain(error)}") from error
    if info.get("aof_enabled") == "0":
        logger.warning(
            "Redis %s has no append-only file (appendonly yes): when it restarts, the newest events are lost, "
            "and clients get a stream-reset",
            where,
        )


def _parse(text: str) -> dict[str, str]:
    pairs = (line.strip().partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon}


def _check_version(info: dict[str, str], where: str) -> None:
    # Valkey gives the version of Redis that it is compatible with here, and its own as valkey_version.
    version = info.get("redis_version", "")
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise LogRefused(f"Redis {where} is version {version or 'unknown'}; needed is {wanted}, or any Valkey")


def _check_memory(info: dict[str, str], where: str) -> None:
    # An evicted index is history that is silently gone. Policies that begin with volatile- take only keys that
    # expire: of ours, remembered idempotency keys.
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys-") and info.get("maxmemory", "0") != "0":
        raise LogRefused(
            f"Redis {where} may evict any key (maxmemory-policy {policy}): a log in it would lose events unnoticed; "
            "set noeviction or one of volatile-…"
        )
