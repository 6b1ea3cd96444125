"""Keeps the log: trims it by retention, counts it, and goes on with rebuilds whose worker has ended.

One worker among all pods does this at a time; its claim lasts ``CLAIM_MS``.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Sequence
from typing import Final

from ..base import GONE_MOST, GONE_SECONDS, RULE_GRACE, TRIM_BITE, LogUnavailable, RetainRule
from .channels import COUNT_BYTES, COUNT_RECORDS, Channels
from .check import Watch
from .client import Client
from .codec import position_of, to_member
from .erase import Eraser
from .link import Argument
from .scripts import KEEP, PRUNE, TRIM

logger = logging.getLogger("headwater.log.redis")

CLAIM_MS: Final = 3000  # another worker takes over after this long without a bite
TRIM_BYTES: Final = 1024 * 1024  # of data at once: Redis serves nobody else meanwhile, about 2 ms
TRIM_RECORDS: Final = 200  # and records
COUNT_SECONDS: Final = 1.0  # how long one call of ``trim`` counts
PASS_SECONDS: Final = 0.5  # and how long it passes over records that rules keep


class Upkeep:
    """One worker's part in it."""

    def __init__(self, client: Client, channels: Channels, eraser: Eraser) -> None:
        self._client = client
        self._channels = channels
        self._eraser = eraser
        self._watch = Watch(client.target.where)
        self._token = f"{os.getpid()}:{secrets.token_hex(8)}"
        self._rebuild_at = 0.0  # monotonic; not before, after one has failed
        self._events, self._ms, self._rules = 1, 1, ""

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule]) -> None:
        """See ``Log.retain``."""
        self._events, self._ms = events, int(seconds * 1000)
        self._rules = "".join(map(_line, rules))

    def trim(self) -> int:
        """See ``Log.trim``."""
        client, claim = self._client, self._client.keys.claim
        if self._watch.due():
            client.call(self._watch.look)
        args: list[Argument] = [COUNT_RECORDS, COUNT_BYTES, self._token, CLAIM_MS, self._rules]
        mine, *answer = client.run(KEEP, [*args, GONE_MOST, int(GONE_SECONDS * 1000)], claim)
        if not mine:
            return 0
        ended, sweep, rebuild = answer
        if sweep:
            logger.warning("somebody else has trimmed the stream in Redis; now it begins at %s", sweep.decode())
            self._sweep(b"(" + to_member(position_of(sweep)))
        if not ended:
            self._channels.catch_up(COUNT_SECONDS)
        total = 0
        while total < TRIM_BITE:
            removed = self._nibble(min(TRIM_BITE - total, TRIM_RECORDS))
            if not removed:
                break
            total += removed
        if rebuild:
            self._rebuild(begin=rebuild == 2)
        return total

    def _nibble(self, most: int) -> int:
        """Trim as much of a bite as Redis does at once: fewer records, if they are large."""
        client, claim = self._client, self._client.keys.claim
        bite: list[Argument] = [self._token, CLAIM_MS, most, TRIM_BYTES]
        if self._rules:
            removed: int = client.run(PRUNE, bite, claim)
            if removed:
                return removed
        passing_until = time.monotonic() + PASS_SECONDS
        while True:
            removed, more = client.run(TRIM, [*bite, self._events, self._ms], claim)
            if removed or not more or time.monotonic() > passing_until:
                return removed

    def _rebuild(self, *, begin: bool) -> None:
        if time.monotonic() < self._rebuild_at:
            return
        try:
            self._eraser.resume(begin=begin)
        except LogUnavailable as error:
            self._rebuild_at = time.monotonic() + error.retry_after
            logger.warning("bytes of removed records stay in Redis: its stream cannot be rebuilt now: %s", error)

    def _sweep(self, below: bytes) -> None:
        """Empty the indexes up to there. Walks all keys of Redis, so only after a foreign trim."""
        client, cursor = self._client, b"0"
        while True:
            cursor, found = client.one("SCAN", cursor, "MATCH", f"{client.keys.index}*", "COUNT", 1000)
            if found:
                client.pipeline(*(("ZREMRANGEBYLEX", index, "-", below) for index in found))
            if cursor == b"0":
                return


def _line(rule: RetainRule) -> str:
    """Write a rule as ``scripts.book`` reads it."""
    events = -1 if rule.events is None else rule.events
    ms = -1 if rule.seconds is None else int(rule.seconds * 1000)
    return f"{events} {ms} {int(RULE_GRACE * 1000)} {rule.pattern}\n"
