"""Replay: finds where a stream begins, and reads what it missed, from the window or else from the log.

Ten thousand clients that return at once ask the same questions. What only the log can answer, it is asked once for all
callers at that moment (:class:`sse.runtime.single_flight.SingleFlight`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..events.batch import encode_frames
from ..events.model import Record, make_position
from ..events.patterns import is_pattern
from ..events.wire import ResetReason
from ..log import Bounds, Log, LogUnavailable
from ..runtime.cooperation import breathe, offload
from ..runtime.single_flight import SingleFlight
from ..settings import Settings
from .group import Group, Subscription
from .stats import Stats
from .window import Page, Window, matches

# One page of a replay: large enough to fill a write, small enough that a slow reader keeps little in memory.
PAGE_BYTES = 64 * 1024
PAGE_EVENTS = 1000

# Seconds that an opening stream waits for the tailer to reach the cursor that it brought from another worker.
SYNC_TIMEOUT = 2.0


class FellBehind(Exception):
    """The log no longer has all events of the stream's channels that follow its cursor."""


class Begin(NamedTuple):
    """What becomes of a client's cursor.

    reason: why it cannot be used as it is, None if it can.
    cursor: the one to go on from.
    told: the position through which the client knows by ``reason``, or need not know, that events were trimmed.
    """

    reason: ResetReason | None
    cursor: int
    told: int = 0


class Start(NamedTuple):
    """Where a stream begins.

    cursor: it counts as served through here.
    reset: the block that tells it of a gap.
    told: see :class:`Begin`.
    """

    cursor: int
    reset: bytes | None
    told: int = 0


class Replay:
    """See the module's text.

    advanced: the hub's lock as a condition, notified when the window has moved.
    catch_up: waits for the tailer if the worker stood still.
    """

    def __init__(
        self,
        log: Log,
        window: Window,
        advanced: threading.Condition,
        settings: Settings,
        stats: Stats,
        catch_up: Callable[[], None],
    ) -> None:
        self._log = log
        self._window = window
        self._advanced = advanced
        self._settings = settings
        self._stats = stats
        self._catch_up = catch_up
        self._flights = SingleFlight()
        self._erasures = 0

    def bounds(self) -> Bounds:
        """Return the log's bounds; callers at the same time share one answer. Raises LogUnavailable."""
        return self._flights.do("bounds", lambda: offload(self._log.bounds))

    def resolve(self, group: Group, requested: str | None, cursor: int | None) -> Start:
        """Find where a stream begins.

        requested: the cursor as the client gave it, None without one; cursor: the same parsed, None if it is malformed.
        Raises LogUnavailable if only the log can tell and it does not answer.
        """
        subscription = group.subscription
        if requested is None:
            return Start(group.position(self._window.position), None)
        reason, cursor, told = self.begin(subscription.channels, cursor)
        if cursor < group.end <= told and self._is_empty(subscription.channels, cursor):
            cursor = group.end  # all was trimmed, the end marker, too: nothing else would tell the client where it ends
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
            return Start(cursor, None, told)
        self._stats.resets[reason] += 1
        bounds = self.bounds()
        return Start(cursor, group.form.reset(reason, requested, bounds.oldest, bounds.latest, cursor), told)

    def begin(self, channels: frozenset[str], cursor: int | None) -> Begin:
        """Judge a client's cursor.

        A client is told ``expired`` only if events of its own channels are gone. It goes on from its own cursor,
        because the log may still hold some of what follows.
        cursor: 0 for the beginning of the log, None for a malformed one. Raises LogUnavailable.
        """
        self._catch_up()
        reason: ResetReason | None = None if cursor is not None else "malformed"
        if cursor is not None and cursor > self._window.position:
            reason, cursor = self._ahead(cursor)
        if reason or cursor is None or cursor <= 0:
            bounds = self.bounds()
            first = bounds.trimmed if bounds.oldest is None else min(bounds.trimmed, bounds.oldest - 1)
            return Begin(reason, first, bounds.trimmed)
        if cursor < max(self._window.floor, self._window.trimmed):
            bounds = self.bounds()
            gone = self._gone(channels) if cursor < bounds.trimmed else 0
            if gone > cursor:
                return Begin("expired", cursor, gone)
            if cursor < bounds.began and cursor >= self._window.lost:
                return Begin("before-log", bounds.began)
        if cursor < self._window.lost:
            return Begin("expired", cursor)
        return Begin(None, cursor)

    def _is_empty(self, channels: frozenset[str], cursor: int) -> bool:
        """Tell whether the log has nothing more of these channels. Raises LogUnavailable."""
        return not self._flights.do(("any", channels, cursor), lambda: offload(self._log.read, channels, cursor, 1, 1))

    def _gone(self, channels: frozenset[str]) -> int:
        """Return the highest position at which an event of these channels was trimmed. Raises LogUnavailable."""
        return self._flights.do(("gone", channels), lambda: offload(self._log.gone, channels, 0))

    def _newest(self, subscription: Subscription, cursor: int, keep: int) -> int | None:
        """Return the position after which exactly ``keep`` frames follow, None if no more follow the cursor.

        The window must hold everything after the cursor.
        """
        channels, types = subscription.channels, subscription.types
        with self._advanced:
            if types is None and not any(map(is_pattern, channels)):
                return self._window.keep_newest(channels, cursor, keep)
            following = self._window.following(channels, cursor)
        if len(following) <= keep:
            return None
        return self._flights.do(
            ("newest", channels, types, cursor), lambda: following.keep_newest(types, cursor, keep, breathe)
        )

    def _ahead(self, cursor: int) -> tuple[ResetReason | None, int]:
        """Judge a cursor beyond what this worker has read; return a reason for a reset, if any, and the cursor to use.

        It is from a worker that is ahead of this one, or a time, or made up. Raises LogUnavailable.
        """
        # Shared only by streams with the same cursor: an answer to another may be older than this cursor's event.
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
        # A time between the newest event and now: nothing has been published since.
        return None, min(cursor, self._window.position)

    def read_page(self, subscription: Subscription, after: int, through: int, told: int = 0) -> Page:
        """Read the next page of a subscription after a cursor, from the window or else from the log. May block.

        told: see :class:`Begin`. Raises FellBehind if an event of these channels that follows the cursor was trimmed
        and the client was not told, LogUnavailable.
        """
        with self._advanced:
            if after >= self._window.floor:
                return self._window.read(subscription.channels, subscription.types, after, through, PAGE_BYTES)
        while True:
            records, gone, complete, erasures = self._flights.do(
                ("page", subscription.channels, after), lambda: self._read_log(subscription.channels, after)
            )
            if erasures == self._erasures:
                break  # else it may have events that were erased since
        if gone > told:
            raise FellBehind
        # Only an empty page shows that the log has no more, and only through the position that the tailer had reached
        # before this read. The read may be another stream's, and may have begun before `through` was published.
        position = min(records[-1].position if records else complete, through)
        frames = encode_frames([record for record in records if record.position <= through])
        types = subscription.types
        return Page([frame for frame in frames if matches(frame, types)], position)

    def erased(self) -> None:
        """Read pages that are being read again: events were erased."""
        self._erasures += 1

    def _read_log(self, channels: frozenset[str], after: int) -> tuple[list[Record], int, int, int]:
        """Read a page of records.

        Return it with what the log says afterwards is gone of these channels, and the worker's position and number of
        erasures before.
        """
        complete, erasures = self._window.position, self._erasures

        def read() -> tuple[list[Record], int, int, int]:
            records = self._log.read(channels, after, PAGE_EVENTS, PAGE_BYTES)
            gone = self._log.gone(channels, after) if self._log.bounds().trimmed > after else 0
            return records, gone, complete, erasures

        return offload(read)
