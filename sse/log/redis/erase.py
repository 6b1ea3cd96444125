"""Erases channels, and rebuilds the stream so that no byte of them is left (``scripts.erase`` tells how).

Rebuilding takes half of Redis's time, in bites of 1 ms, and for a while the memory of a second stream.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from ...events.markers import erased_marker
from ...events.model import format_id
from ..base import Erased, LogUnavailable
from .channels import COUNT_BYTES, COUNT_RECORDS, LIST_SECONDS, Channels
from .check import read_info
from .client import Client
from .codec import position_of
from .errors import is_full
from .scripts import ERASE, REBUILD

logger = logging.getLogger("headwater.log.redis")

BITE_RECORDS: Final = 200  # of a bite of a rebuild; about 1 ms of Redis's time
BITE_BYTES: Final = 256 * 1024
PAUSE: Final = 0.002  # seconds between two bites, at most; less if the last one took less
ENTRY_BYTES: Final = 64  # what an entry takes in a stream beyond its data, about
ERASE_SECONDS: Final = 60.0  # how long ``erase`` waits for the last byte; the worker that trims then goes on
FREE_SECONDS: Final = 5.0  # and for Redis to give the old stream's memory back, which it does in another thread
NO_ROOM: Final = 60.0  # when to try again if there is no room for a second stream, seconds
RESUME_SECONDS: Final = 1.0  # how long that worker rebuilds at once


class Eraser:
    """Erases channels."""

    def __init__(self, client: Client, channels: Channels) -> None:
        self._client = client
        self._channels = channels

    def erase(self, channel: str) -> Erased:
        """See ``Log.erase``."""
        deadline = time.monotonic() + ERASE_SECONDS
        head, tail = erased_marker(channel, 0).data.split(format_id(0))
        while True:
            if self._channels.catch_up(LIST_SECONDS) is None and time.monotonic() > deadline:
                raise LogUnavailable("the records in Redis are still being counted; nothing was erased", stored="no")
            answer = self._client.store(ERASE, [COUNT_RECORDS, COUNT_BYTES, channel, head, tail])
            if answer[0] == b"erased":
                break
        _, events, marker = answer
        through = position_of(marker)
        self._client.holds(through)
        try:
            self._finish(through, deadline)
        except LogUnavailable as error:
            message = f"the records are gone, but until the stream is rebuilt Redis may hold bytes of them: {error}"
            raise LogUnavailable(message, error.retry_after) from error
        return Erased(events, through)

    def resume(self, *, begin: bool) -> None:
        """Go on with a rebuild that nobody works at, for ``RESUME_SECONDS``. begin: start one that erases nothing."""
        deadline = time.monotonic() + RESUME_SECONDS
        self._check_room()
        status, _ = self._bite(begin=begin)
        while status == b"more" and time.monotonic() < deadline:
            status, _ = self._bite()

    def _finish(self, through: int, deadline: float) -> None:
        """Rebuild until no byte is left of what was erased through this position."""
        self._check_room()
        while True:
            try:
                status, erased = self._bite()
            except LogUnavailable as error:
                if is_full(error) or time.monotonic() + error.retry_after > deadline:
                    raise
                time.sleep(error.retry_after)  # a failover, or a restart: what is done so far is in Redis
                continue
            if erased >= through:
                return self._wait_until_free()
            if status == b"idle":
                raise LogUnavailable("Redis has lost the erasure itself: erase the channel again")
            if time.monotonic() > deadline:
                raise LogUnavailable("that takes longer than usual")

    def _bite(self, *, begin: bool = False) -> tuple[bytes, int]:
        """Rebuild a bite, and leave Redis to others for as long. Returns what ``REBUILD`` does."""
        client, started = self._client, time.monotonic()
        try:
            status, erased = client.store(REBUILD, [BITE_RECORDS, BITE_BYTES, int(begin)])
        except LogUnavailable as error:
            if is_full(error):
                client.pipeline(("UNLINK", client.keys.copy), ("DEL", client.keys.rebuild))  # publishers need the room
            raise
        time.sleep(min(time.monotonic() - started, PAUSE))
        return status, position_of(erased)

    def _check_room(self) -> None:
        """Raise ``LogUnavailable`` if a second stream would not fit into a Redis with a memory limit."""
        keys = self._client.keys
        info = self._client.call(lambda link: read_info(link, "memory"))
        limit = int(info.get("maxmemory", 0))
        if limit:
            begun, (records, size) = self._client.pipeline(
                ("EXISTS", keys.rebuild), ("HMGET", keys.book, "records", "bytes")
            )
            needed = int(size or 0) + ENTRY_BYTES * int(records or 0)
            if not begun and int(info.get("used_memory", 0)) + needed > limit:
                raise LogUnavailable(f"Redis has no room for a second stream of {needed:,} bytes (maxmemory)", NO_ROOM)

    def _wait_until_free(self) -> None:
        deadline = time.monotonic() + FREE_SECONDS
        while time.monotonic() < deadline:
            info = self._client.call(lambda link: read_info(link, "memory"))
            if info.get("lazyfree_pending_objects", "0") == "0":
                return
            time.sleep(0.01)
