"""Follows the Redis log on a connection of its own, and notices when it is no longer the same log.

Three kinds of change raise ``LogReplaced``, so that a worker's streams end, resume, and learn where they missed
something: another log (``created``), one that was trimmed before it was read (``trimmed``), and one that has lost its
newest events (``lost``). A lagging replica that takes over, or a Redis whose disk was behind, leaves the last: the log
looks whole and is only shorter. A worker that knows better marks it (``client``); the others see the mark here,
before they hand on any later event.
"""

from __future__ import annotations

from typing import Final

import redis

from ...events.model import format_id
from ..base import FOLLOW_CHARS, FOLLOW_RECORDS, LogReplaced
from .client import Client
from .codec import Entry, position_of
from .link import Command
from .read import FIRST_PAGE, fitting
from .scripts import BOUNDS

BLOCK_MS: Final = 900  # how often a quiet follower hears from Redis; below QUIET_SECONDS
MARGIN: Final = 1.1  # seconds after that until a follower's Redis counts as dead


class Tail:
    """One follower's place in the log.

    ``Client.history`` and ``Client.followed`` outlive it: which log it was, and how far this worker has read.
    """

    def __init__(self, client: Client, after: int) -> None:
        self.link = client.connect(BLOCK_MS / 1000 + MARGIN)
        self._client = client
        self._after = after
        self._beyond = format_id(after)
        self._count = FIRST_PAGE
        self._asked = False  # is an answer on its way?
        self._block_ms = 1  # the first answer arrives at once, even if it is empty
        self._last = self._trimmed = b"0-0"  # of the log, when it answered last
        self._whole = False  # True if nothing beyond ``after`` was trimmed before this follower read it

    def resume(self) -> None:
        """Raise ``LogReplaced`` unless this is still the log that was followed through ``after``."""
        client, after, link = self._client, self._after, self.link
        created, latest, self._trimmed, _, _, lost, *_ = client.run_on(link, BOUNDS, [])
        self._whole = after >= position_of(self._trimmed)
        known, client.history = client.history, (created, lost)
        read, client.followed = client.followed == after, None
        self._same(known or client.history)
        if after > position_of(latest):
            raise LogReplaced(f"the log in Redis ends at {latest.decode()}, before {format_id(after)}")
        if read and not self._whole:
            raise self._overtaken()

    def _same(self, known: tuple[bytes, bytes]) -> None:
        """Raise ``LogReplaced`` unless the log's history is the known one."""
        created, lost = self._client.history or known
        if created != known[0]:
            raise LogReplaced(f"the log in Redis is another one, of {created.decode()}")
        if lost != known[1]:
            raise LogReplaced(f"the log in Redis has lost events that had ids below {lost.decode()}")

    def poll(self) -> list[Entry]:
        """Wait up to ``BLOCK_MS`` for entries and return them. Raises ``LogReplaced``, and discards what was read.

        Marker, newest id and the end of trimming come in the same write: they cost a batch 2 µs, and no round trip.
        """
        while True:
            if not self._asked:
                self._ask()
            self._asked = False
            answer, (created, lost, last, trimmed, erasing) = self.link.receive(2)
            if self.link.reign != self._client.reign:
                raise redis.ConnectionError("another Redis has become the master")
            self._compare((created, lost or b""), last, trimmed)
            self._block_ms = BLOCK_MS
            if not answer:
                return []
            entries: list[Entry] = answer[0][1]
            left = self._unerased(entries) if erasing else entries
            behind = len(entries) == self._count
            self._beyond = entries[-1][0].decode()
            self._count = fitting(entries, FOLLOW_CHARS, FOLLOW_RECORDS)
            self._whole = True
            if behind:
                self._ask()  # Redis, which may be busy with others, answers while these are handed on
            if left:
                return left

    def _unerased(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what was erased and is still in the stream: a worker that is behind must not deliver it."""
        (raw,) = self.link.call([("HGETALL", self._client.keys.erased)])
        gone = dict(zip(raw[::2], map(position_of, raw[1::2]), strict=True))
        return [
            (id, fields)
            for id, fields in entries
            if len(fields) < 2 or fields[1] not in gone or position_of(id) >= gone[fields[1]]
        ]

    def _ask(self) -> None:
        keys = self._client.keys
        commands: list[Command] = [
            ("XREAD", "COUNT", self._count, "BLOCK", self._block_ms, "STREAMS", keys.events, self._beyond),
            ("HMGET", keys.meta, "created", "lost", "last", "trimmed", "erasing"),
        ]
        self.link.send(commands)
        self._asked = True

    def _compare(self, history: tuple[bytes | None, bytes], last: bytes, trimmed: bytes) -> None:
        known = self._client.history
        if history != known or (last != self._last and position_of(last) < position_of(self._last)):
            # Create a log that is gone, and mark one that went back, before anybody is told.
            self._client.knows(position_of(self._last))
            created, _, _, _, _, lost, *_ = self._client.run_on(self.link, BOUNDS, [])
            self._client.history = created, lost
            self._same(known or (created, lost))
            raise LogReplaced(f"the log in Redis went back from {self._last.decode()} to {last.decode()}")
        self._last = last
        if trimmed != self._trimmed:
            self._trimmed = trimmed
            if self._whole and position_of(trimmed) > position_of(self._beyond.encode()):
                raise self._overtaken()

    def _overtaken(self) -> LogReplaced:
        # The events between are gone, and a batch does not show it: it just begins later.
        return LogReplaced(f"the log was trimmed through {self._trimmed.decode()}, but read only to {self._beyond}")
