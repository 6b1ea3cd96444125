"""Following the Redis log on a connection of its own, and noticing when it is not the same log any more."""

from __future__ import annotations

from typing import Final

from sse.event import format_id
from sse.log._redis_client import Client
from sse.log._redis_codec import Entry, position_of
from sse.log._redis_link import Command, Link
from sse.log._redis_read import FIRST_PAGE, fitting
from sse.log._redis_scripts import BOUNDS
from sse.log.base import FOLLOW_CHARS, FOLLOW_RECORDS, LogReplaced

BLOCK_MS: Final = 900  # a quiet follower hears from Redis this often: below QUIET_SECONDS
MARGIN: Final = 1.1  # seconds beyond that, after which a follower's Redis is taken for dead


class Tail:
    """Where one follower is in the log.

    `Client.created` and `Client.followed` outlive it: they say what log it was, and how far this worker has read.
    """

    def __init__(self, client: Client, after: int) -> None:
        self.link = client.connect(BLOCK_MS / 1000 + MARGIN)
        self._client = client
        self._after = after
        self._beyond = format_id(after)
        self._count = FIRST_PAGE
        self._block_ms = 1  # the first answer comes at once, even if it is empty
        self._last = self._trimmed = b"0-0"  # of the log, when it answered last
        self._whole = False  # has nothing been trimmed beyond `after` that this follower was not given?

    def resume(self) -> None:
        """Is this still the log that was followed through `after`? Raises `LogReplaced`."""
        client, after, link = self._client, self._after, self.link
        created, latest, self._trimmed, _, _ = client.run_on(link, BOUNDS, [])
        self._whole = after >= position_of(self._trimmed)
        known, client.created = client.created, created
        read, client.followed = client.followed == after, None
        if known not in (None, created):
            raise LogReplaced(f"the log in Redis is another one, of {created.decode()}")
        if after > position_of(latest):
            raise LogReplaced(f"the log in Redis ends at {latest.decode()}, before {format_id(after)}")
        if read and not self._whole:
            raise self._overtaken()
        if read and after > position_of(self._trimmed) and not self._holds(link, self._beyond):
            raise LogReplaced(f"the log in Redis has lost {self._beyond}: it is an older copy")

    def _holds(self, link: Link, id: str) -> bool:
        return bool(link.call([("XRANGE", self._client.keys.events, id, id)])[0])

    def poll(self) -> list[Entry]:
        """Wait for entries, `BLOCK_MS` at most, and return them. Raises `LogReplaced`, with what was read thrown away.

        Marker, newest id and the end of trimming come in the same write: they cost a batch 2 µs, and no round trip.
        """
        keys = self._client.keys
        commands: list[Command] = [
            ("XREAD", "COUNT", self._count, "BLOCK", self._block_ms, "STREAMS", keys.events, self._beyond),
            ("HMGET", keys.meta, "created", "last", "trimmed"),
        ]
        answer, (created, last, trimmed) = self.link.call(commands)
        self._compare(created, last, trimmed)
        self._block_ms = BLOCK_MS
        if not answer:
            return []
        entries: list[Entry] = answer[0][1]
        self._beyond = entries[-1][0].decode()
        self._count = fitting(entries, FOLLOW_CHARS, FOLLOW_RECORDS)
        self._whole = True
        return entries

    def _compare(self, created: bytes | None, last: bytes, trimmed: bytes) -> None:
        if created != self._client.created:
            self._client.created = self._client.run_on(self.link, BOUNDS, [])[0]
            raise LogReplaced("the log in Redis was removed or exchanged")
        if last != self._last and position_of(last) < position_of(self._last):
            raise LogReplaced(f"the log in Redis went back from {self._last.decode()} to {last.decode()}")
        self._last = last
        if trimmed != self._trimmed:
            self._trimmed = trimmed
            if self._whole and position_of(trimmed) > position_of(self._beyond.encode()):
                raise self._overtaken()

    def _overtaken(self) -> LogReplaced:
        # The events between are gone. A batch tells nothing of them: it just begins later.
        return LogReplaced(f"the log was trimmed through {self._trimmed.decode()}, but read only to {self._beyond}")
