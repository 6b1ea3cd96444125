"""Replay: where a stream begins, and what it missed, from the window or else from the log.

Ten thousand clients that come back at once ask the same questions: what only the log can answer is asked once for all
who ask meanwhile (:class:`sse.runtime.single_flight.SingleFlight`).
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from ..events.batch import encode_frames
from ..events.model import Record, ResetReason, make_position, reset_block
from ..log import Bounds, Log, LogUnavailable
from ..runtime.cooperation import breathe, offload
from ..runtime.single_flight import SingleFlight
from ..settings import Settings
from .group import Group, Subscription
from .stats import Stats
from .window import Page, Window, matches

# One page of a replay. Large enough that a page costs one write, small enough that a slow reader pins little.
PAGE_BYTES = 64 * 1024
PAGE_EVENTS = 1000

# How long an opening stream waits for the tailer to reach the cursor that it brought from another worker.
SYNC_TIMEOUT = 2.0


class FellBehind(Exception):
    """The log no longer holds what follows this cursor."""


class Start(NamedTuple):
    """Where a stream begins: served through ``cursor``; ``reset`` is the block that tells it of a gap."""

    cursor: int
    reset: bytes | None


class Replay:
    """See the module's text.

    advanced: the hub's lock as a condition, notified when the window has moved.
    """

    def __init__(
        self, log: Log, window: Window, advanced: threading.Condition, settings: Settings, stats: Stats
    ) -> None:
        self._log = log
        self._window = window
        self._advanced = advanced
        self._settings = settings
        self._stats = stats
        self._flights = SingleFlight()

    def bounds(self) -> Bounds:
        """The log's bounds; callers that ask at once share one look. Raises LogUnavailable."""
        return self._flights.do("bounds", lambda: offload(self._log.bounds))

    def resolve(self, group: Group, requested: str | None, cursor: int | None) -> Start:
        """Where a stream begins (DESIGN: "Event ids are times").

        requested: the cursor as the client gave it, None without one; cursor: the same parsed, None when it cannot
        be. Raises LogUnavailable when only the log could tell and it does not answer.
        """
        subscription = group.subscription
        if requested is None:
            return Start(group.position(self._window.position), None)
        reason: ResetReason | None = None
        if cursor is None:
            reason = "malformed"
        elif cursor > self._window.position:
            reason, cursor = self._ahead(cursor)
        elif 0 < cursor < self._window.floor and cursor < (bounds := self.bounds()).trimmed:
            reason = "before-log" if bounds.complete else "expired"
        if reason or cursor is None or cursor <= 0:
            cursor = self.bounds().trimmed
        elif cursor < self._window.lost:
            reason = "expired"  # and what is held beyond the cursor follows
        keep = self._settings.sse_replay_limit
        if cursor >= self._window.floor:
            cut = self._newest(subscription, cursor, keep)
        else:
            after = cursor
            cut = self._flights.do(
                ("floor", subscription.channels, after),
                lambda: offload(self._log.floor, subscription.channels, after, keep),
            )
        if cut is not None:
            reason, cursor = reason or "too-far", cut
        if reason is None:
            return Start(cursor, None)
        self._stats.resets[reason] += 1
        bounds = self.bounds()
        return Start(cursor, reset_block(reason, requested, bounds.oldest, bounds.latest, cursor))

    def _newest(self, subscription: Subscription, cursor: int, keep: int) -> int | None:
        """The position after which exactly ``keep`` frames of the window follow, when more follow the cursor."""
        channels, types = subscription
        with self._advanced:
            if types is None:
                return self._window.keep_newest(channels, cursor, keep)
            following = self._window.following(channels, cursor)
        if len(following) <= keep:
            return None
        return self._flights.do(
            ("newest", channels, types, cursor), lambda: following.keep_newest(types, cursor, keep, breathe)
        )

    def _ahead(self, cursor: int) -> tuple[ResetReason | None, int]:
        """A cursor beyond what this worker has read: from a worker that is ahead, a time, or from nowhere."""
        # Shared with those who hold the same cursor only: a look that began earlier may be older than the event.
        latest = self._flights.do(("ahead", cursor), lambda: offload(self._log.bounds)).latest
        self._log.wake()
        deadline = time.monotonic() + SYNC_TIMEOUT
        with self._advanced:
            while self._window.position < min(cursor, latest):
                left = deadline - time.monotonic()
                if left <= 0 or not self._advanced.wait(left):
                    raise LogUnavailable("this worker has not caught up with the log", retry_after=1.0)
        if cursor > max(latest, make_position(time.time_ns() // 1_000_000 + 1)):
            return "unknown", 0
        # A time between the newest event and now: nothing has happened since.
        return None, min(cursor, self._window.position)

    def read_page(self, subscription: Subscription, after: int, through: int) -> Page:
        """The next page of a subscription after a cursor, from the window, else from the log (one read in flight
        per page). Blocks. Raises FellBehind when the log was trimmed beyond the cursor, LogUnavailable."""
        with self._advanced:
            if after >= self._window.floor:
                return self._window.read(subscription.channels, subscription.types, after, through, PAGE_BYTES)
        records, trimmed, complete = self._flights.do(
            ("page", subscription.channels, after), lambda: self._read_log(subscription.channels, after)
        )
        if trimmed > after:
            raise FellBehind
        # Only an empty page says that the log holds no more, and only through what the tailer had read before the
        # read began: it may be another stream's, begun before `through` was there.
        position = min(records[-1].position if records else complete, through)
        frames = encode_frames([record for record in records if record.position <= through])
        types = subscription.types
        return Page([frame for frame in frames if matches(frame, types)], position)

    def _read_log(self, channels: frozenset[str], after: int) -> tuple[list[Record], int, int]:
        """A page of records, the trim mark after it was read, and the worker's position before."""
        complete = self._window.position

        def read() -> tuple[list[Record], int, int]:
            records = self._log.read(channels, after, PAGE_EVENTS, PAGE_BYTES)
            return records, self._log.bounds().trimmed, complete

        return offload(read)
