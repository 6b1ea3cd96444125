"""What the log knows of its channels: which there are, which are closed, what was trimmed of each.

The book (``scripts.book``) is brought up to date by whoever asks, as far as its budget goes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from ...events.patterns import is_pattern, is_reserved, split
from ..base import ChannelInfo
from .client import Client
from .codec import position_of
from .scripts import COUNT, GONE, LIST

COUNT_RECORDS: Final = 400  # of a bite; 1 ms of Redis's time
COUNT_BYTES: Final = 1024 * 1024
LIST_SECONDS: Final = 2.0  # how long a listing waits for the book: more than 100,000 new records
SELECT_SECONDS: Final = 0.1  # and how long a reader of patterns does
NAMES_PAGE: Final = 500
LIST_PAGE: Final = 200  # each is looked up in five places: 1 ms
# Indexes that are merged for patterns at most; with more channels the stream itself is read.
MERGED_MOST: Final = 1000
REMEMBERED: Final = 100  # patterns for which ``gone`` is remembered until something is trimmed


class Selection(NamedTuple):
    """Which channels to read: these names. through: up to where they are known; None: to the end."""

    names: frozenset[str]
    through: int | None


class Channels:
    """The log's channels."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._gone: dict[str, tuple[int, int]] = {}  # by prefix: how often was trimmed by then, and the answer

    def catch_up(self, seconds: float) -> int | None:
        """Count what was appended, for so long at most; return the position through which all is counted, or None."""
        ended_at = time.monotonic() + seconds
        while True:
            started = time.monotonic()
            ended, counted = self._client.run(COUNT, [COUNT_RECORDS, COUNT_BYTES])
            if ended:
                return position_of(counted)
            now = time.monotonic()
            if now > ended_at:
                return None
            time.sleep(now - started)  # half of the time is for others

    def select(self, channels: Collection[str]) -> Selection | None:
        """Find the channels of these names and patterns; None if they are too many, or not all known in time."""
        names, prefixes = split(channels)
        if not prefixes:
            return Selection(names, None)
        through = self.catch_up(SELECT_SECONDS)
        if through is None:
            return None
        found = set(names)
        for prefix in prefixes:
            found.update(self._names(prefix, MERGED_MOST + 1 - len(found)))
            if len(found) > MERGED_MOST:
                return None
        return Selection(frozenset(found), through)

    def _names(self, prefix: str, most: int) -> list[str]:
        """Return the first channels with this prefix, no reserved ones."""
        begin, end = _span(prefix, "")
        names: list[str] = []
        while len(names) < most:
            want = min(most - len(names), NAMES_PAGE)
            found = self._client.one("ZRANGEBYLEX", self._client.keys.names, begin, end, "LIMIT", 0, want)
            names += (name for name in map(bytes.decode, found) if not is_reserved(name))
            if len(found) < want:
                break
            begin = b"(" + found[-1]
        return names

    def page(self, prefix: str, after: str, limit: int) -> list[ChannelInfo]:
        """See ``Log.channels``."""
        self.catch_up(LIST_SECONDS)
        begin, end = _span(prefix, after)
        page: list[ChannelInfo] = []
        while len(page) < limit:
            want = min(limit - len(page), LIST_PAGE)
            looked, last, *rows = self._client.run(LIST, [begin, end, want])
            for n in range(0, len(rows), 6):
                channel, events, size, oldest, newest, closed = rows[n : n + 6]
                first, latest = (position_of(id) if id else None for id in (oldest, newest))
                page.append(ChannelInfo(channel.decode(), events, size, first, latest, closed == 1))
            if looked < want:
                break
            begin = b"(" + last
        return page

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        """See ``Log.closed``."""
        names = [name for name in channels if not is_pattern(name)]
        if not names:
            return {}
        ids = self._client.one("HMGET", self._client.keys.closed, *names)
        return {name: position_of(id) for name, id in zip(names, ids, strict=True) if id}

    # ── what was trimmed ────────────────────────────────────────────────────────────────────────────────────

    def gone(self, channels: Collection[str]) -> int:
        """Return the highest position at which something of these channels was trimmed; 0 for nothing."""
        names, prefixes = split(channels)
        listed, highest = sorted(names), 0
        for n in range(0, max(len(listed), 1), NAMES_PAGE):
            coarse, trims, *marks = self._client.run(GONE, listed[n : n + NAMES_PAGE])
            highest = max(highest, position_of(coarse), *map(position_of, filter(None, marks)))
        for prefix in prefixes:
            known_at, found = self._gone.get(prefix, (None, 0))
            if known_at != trims:
                found = self._gone_of(prefix)
                if len(self._gone) >= REMEMBERED:
                    self._gone.clear()
                self._gone[prefix] = trims, found
            highest = max(highest, found)
        return highest

    def _gone_of(self, prefix: str) -> int:
        """Find it for a pattern: among the channels that have records, and those that have none left.

        A channel that changes from the ones to the others meanwhile is met all the same, as the first are looked at
        once more.
        """
        return max(self._gone_of_names(prefix), self._gone_of_idle(prefix), self._gone_of_names(prefix))

    def _gone_of_names(self, prefix: str) -> int:
        begin, end = _span(prefix, "")
        highest = 0
        while True:
            names = self._client.one("ZRANGEBYLEX", self._client.keys.names, begin, end, "LIMIT", 0, NAMES_PAGE)
            highest = max(highest, self._highest(names))
            if len(names) < NAMES_PAGE:
                return highest
            begin = b"(" + names[-1]

    def _gone_of_idle(self, prefix: str) -> int:
        cursor, stem, highest = b"0", prefix.encode(), 0
        while True:
            cursor, found = self._client.one("ZSCAN", self._client.keys.idle, cursor, "COUNT", NAMES_PAGE)
            highest = max(highest, self._highest([name for name in found[::2] if name.startswith(stem)]))
            if cursor == b"0":
                return highest

    def _highest(self, names: Sequence[bytes]) -> int:
        free = [name for name in names if not name.startswith(b"_")]
        marks = self._client.one("HMGET", self._client.keys.gone, *free) if free else []
        return max((position_of(id) for id in marks if id), default=0)


def _span(prefix: str, after: str) -> tuple[bytes, bytes]:
    """Return where the names with this prefix, behind ``after``, begin and end. (No byte of UTF-8 is 0xff.)"""
    stem = prefix.encode()
    begin = b"(" + after.encode() if after >= prefix and after else b"[" + stem
    return begin, b"(" + stem + b"\xff"
