"""Checks whether a Redis can hold this log: before its first use, and now and then later."""

from __future__ import annotations

import logging
import re
import time
from typing import Final

import redis

from ..base import LogRefused
from .codec import Keys
from .errors import error_word, explain
from .link import Link
from .scripts import CHECK
from .url import RedisUrl

logger = logging.getLogger("headwater.log.redis")

OLDEST: Final = (6, 2)  # XTRIM MINID, exclusive ranges in XRANGE
OLDEST_SYNC: Final = (7, 2)  # WAITAOF

WATCH_SECONDS: Final = 30.0

# Conditions that pass: not a reason to refuse for good.
_PASSING: Final = ("OOM", "READONLY", "LOADING", "MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY", "TRYAGAIN", "RESTORING")


def check(link: Link, keys: Keys, target: RedisUrl) -> None:
    """Raise ``LogRefused`` if this Redis cannot hold the log as its URL asks.

    It is too old, evicts keys, is a node of a cluster or a Sentinel, lacks a right, holds foreign keys, or cannot say
    what is on its disk. Other errors of redis-py pass through: they mean that the check cannot be made now.
    """
    where = target.where
    try:
        info = read_info(link, "server", "memory", "persistence", "cluster")
        _check_version(info, where)
        _check_mode(info, link, keys, where)
        if risk := eviction(info):
            raise LogRefused(f"Redis {where} {risk}")
        kinds = [kind.decode() for kind in link.call([("TYPE", keys.meta), ("TYPE", keys.events)])]
        for key, kind, wanted in zip((keys.meta, keys.events), kinds, ("hash", "stream"), strict=True):
            if kind not in (wanted, "none"):
                raise LogRefused(f"Redis {where}: the key {key} is a {kind}, not a {wanted}: it is not ours")
        link.run(CHECK, [keys.meta, keys.events, keys.scratch, keys.scratch_moved], ["0-0"])
        if target.replicas:
            link.call([("WAIT", 0, 1)])  # returns at once; may this user?
        if target.sync:
            _check_sync(link, info, where)
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


def _check_sync(link: Link, info: dict[str, str], where: str) -> None:
    """Raise ``LogRefused`` unless this Redis syncs each write, and can say that it did (WAITAOF).

    WAITAOF alone is not enough: with ``appendfsync everysec`` Valkey 9.1.2 answers it up to a second before the sync.
    """
    version = info.get("redis_version", "unknown")
    if _below(version, OLDEST_SYNC):
        raise LogRefused(
            f"Redis {where} is version {version}, which cannot say what is on its disk: ?sync=full needs Redis 7.2 or "
            "newer, or Valkey; or leave ?sync=full out, and a power cut may lose what was acknowledged"
        )
    if info.get("aof_enabled") != "1":
        raise LogRefused(f"Redis {where} has no append-only file: ?sync=full needs appendonly yes")
    try:
        policy = link.call([("CONFIG", "GET", "appendfsync")])[0]
    except redis.ResponseError as error:
        raise LogRefused(f"Redis {where} does not tell its appendfsync (?sync=full): {error}") from error
    if policy[1:] != [b"always"]:
        found = policy[1].decode() if policy[1:] else "unknown"
        raise LogRefused(f"Redis {where} has appendfsync {found}: ?sync=full needs appendfsync always")
    link.call([("WAITAOF", 0, 0, 1)])  # returns at once; may this user?


def read_info(link: Link, *sections: str) -> dict[str, str]:
    """Return what INFO answers about these sections, by name."""
    text = b"\n".join(link.call([("INFO", section) for section in sections])).decode("utf-8", "replace")
    pairs = (line.strip().partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon}


def _check_version(info: dict[str, str], where: str) -> None:
    # Valkey gives the version of Redis that it is compatible with here, and its own as valkey_version.
    version = info.get("redis_version", "")
    if _below(version, OLDEST):
        wanted = ".".join(map(str, OLDEST))
        raise LogRefused(f"Redis {where} is version {version or 'unknown'}; needed is {wanted}, or any Valkey")


def _below(version: str, oldest: tuple[int, int]) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is None or (int(found[1]), int(found[2])) < oldest


def _check_mode(info: dict[str, str], link: Link, keys: Keys, where: str) -> None:
    # Of a cluster's nodes the one that holds the log's slot would do, until the slot moves, or that node fails over:
    # clients are then sent to another one, and this one follows no such redirection.
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        raise LogRefused(f"Redis {where} is a Sentinel: give its URL as redis+sentinel://{where}/<service>")
    if info.get("cluster_enabled") != "1":
        return
    try:
        link.call([("TYPE", keys.meta)])
        owner = "this one"
    except redis.exceptions.MovedError as error:
        owner = f"{error.host}:{error.port}"
    except redis.RedisError:
        owner = "nowhere now"
    raise LogRefused(
        f"Redis {where} is a node of a Redis Cluster (this log's slot is on {owner}), whose redirections Headwater "
        "does not follow: give it a Redis without cluster mode, or one with Sentinels (redis+sentinel://…)"
    )


def eviction(info: dict[str, str]) -> str | None:
    """Return what this Redis may forget when it is full, None if nothing.

    Evicting an index silently loses history. Evicting an idempotency key lets an event be stored twice (volatile-…
    evicts keys that expire, and these are the only ones of ours).
    """
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or info.get("maxmemory", "0") == "0":
        return None
    loss = "evict any key, and a log in it would lose events unnoticed"
    if policy.startswith("volatile-"):
        loss = "evict idempotency keys, and repeated requests would be stored again"
    return f"may {loss} (maxmemory-policy {policy}): set maxmemory-policy noeviction"


class Watch:
    """Looks every ``WATCH_SECONDS`` whether this Redis may evict: its policy can change, and a server that takes over
    has its own. It only logs that: refusing publishers would turn a risk into an outage."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._look_at = time.monotonic() + WATCH_SECONDS
        self._risk: str | None = None

    def due(self) -> bool:
        """Return True, once, when it is time to look again."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + WATCH_SECONDS
        return True

    def look(self, link: Link) -> None:
        """Look, and log what has changed. Raises redis-py's errors."""
        risk = eviction(read_info(link, "memory"))
        if risk != self._risk:
            self._risk = risk
            if risk:
                logger.error("Redis %s %s", self._where, risk)
            else:
                logger.info("Redis %s evicts nothing any more", self._where)
