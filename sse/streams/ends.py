"""Which channels are closed, as far as one worker knows, and which groups end with them.

The window knows what a channel's newest record is: a closed channel's is its end marker. Of a channel that has nothing
there the log is asked, once. From then on the records that pass keep the answer true, as closing and erasing are
records of the channel itself. A subscription with a pattern never ends, because a channel may always be added to it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from typing import Final

from ..events.markers import MARKERS, end_marker
from ..events.model import STREAM_END
from ..events.patterns import is_pattern, is_reserved
from ..log import Log, LogError
from ..runtime.cooperation import offload
from ..runtime.single_flight import SingleFlight
from .group import Group, Subscription
from .replay import FellBehind, Replay
from .window import Window, data_of

# Limit on the channels whose state is kept; at the limit, all are forgotten.
MOST_KNOWN: Final = 20_000

# Channels in one question to the log.
ASKED_AT_ONCE: Final = 500

# Seconds between two looks at groups of which it is unknown whether they end.
CHECK_INTERVAL: Final = 0.25


def is_end(channel: str, event: str | None, data: str) -> bool:
    """Tell whether a record is its channel's end marker.

    Older versions let publishers use its type, so a log may have such events of theirs.
    """
    return event == STREAM_END and data == end_marker(channel).data


class _Turn:
    """The channels of one question to the log."""

    def __init__(self) -> None:
        self.names: set[str] = set()


class Ends:
    """See the module's text. lock: the hub's, which guards all of this but the questions to the log."""

    def __init__(self, log: Log, window: Window, replay: Replay, lock: threading.Condition) -> None:
        self._log = log
        self._window = window
        self._replay = replay
        self._lock = lock
        self._known: dict[str, int] = {}  # closing positions; 0 for an open channel
        self._unsure: dict[Group, None] = {}
        self._passed: set[str] = set()  # channels with a marker since the present question was asked
        self._forgotten = 0  # how often all was forgotten
        self._turn = _Turn()  # what is to be asked next
        self._asking = threading.Lock()
        self._flights = SingleFlight()

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────

    def passed(self, channel: str, position: int, *, closed: bool) -> None:
        """Note a marker that the tailer has read: the channel was closed, or erased and thereby opened."""
        if position > self._known.get(channel, 0):
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[channel] = position if closed else 0
            self._passed.add(channel)

    def forget(self) -> None:
        """Forget all: markers may have passed unseen, or the log is another one."""
        self._known.clear()
        self._forgotten += 1

    def _closing(self, channel: str) -> int | None:
        """Return a channel's closing position, 0 if it is open, None if that is unknown."""
        known = self._known.get(channel)
        if known is None:
            newest = self._window.newest(channel)
            if newest is None:
                return None
            known = newest.position if newest.event in MARKERS and is_end(channel, newest.event, data_of(newest)) else 0
        return known

    def end_of(self, subscription: Subscription) -> int | None:
        """Return the position at which this subscription ends: the newest end of its channels, all of which are closed.

        0 if it does not end; None if that is unknown.
        """
        end: int | None = 0
        for channel in subscription.channels:
            if is_pattern(channel) or is_reserved(channel):
                return 0
        for channel in subscription.channels:
            closing = self._closing(channel)
            if closing == 0:
                return 0
            end = None if closing is None or end is None else max(end, closing)
        return end

    # ── groups ──────────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, groups: Iterable[Group]) -> list[Group]:
        """Set where these groups end; return those that do."""
        ending = []
        for group in groups:
            end = self.end_of(group.subscription)
            group.end = end or 0
            if end is None:
                self._unsure[group] = None
            elif end:
                ending.append(group)
        return ending

    def check(self) -> list[Group]:
        """Ask the log about the groups of which it is unknown whether they end; return those that do.

        Raises LogUnavailable; it then is to be called again.
        """
        if not self._unsure:
            return []
        with self._lock:
            unsure = [group for group in self._unsure if group.members]
            names = {channel for group in unsure for channel in group.subscription.channels}
        self._learn(names)
        with self._lock:
            self._unsure.clear()
            return self.judge(unsure)

    # ── what others ask ─────────────────────────────────────────────────────────────────────────────────────

    def closed_channels(self, names: Collection[str]) -> dict[str, int]:
        """Return which of these channels are closed, with their closing positions. Raises LogUnavailable."""
        self._learn(names)
        with self._lock:
            found = {name: self._closing(name) for name in names}
        if None in found.values():  # all was forgotten meanwhile
            return offload(self._log.closed, list(names))
        return {name: closing for name, closing in found.items() if closing}

    def is_over(self, subscription: Subscription, requested: str | None, cursor: int | None) -> bool:
        """Tell whether there is nothing to send to such a stream, nor ever will be. May wait for the log.

        Its channels are all closed, and it begins at or beyond their end, or without a cursor. While the log does not
        answer, it is False: the stream opens, and ends as soon as the log has answered.
        requested, cursor: as for `Replay.resolve`.
        """
        if any(is_pattern(channel) or is_reserved(channel) for channel in subscription.channels):
            return False
        try:
            end = self._end_for(subscription, cursor)
            if not end:
                return False
            if requested is None:
                return True
            return cursor is not None and (cursor >= end or self._only_markers(subscription, cursor, end))
        except (LogError, FellBehind):
            return False

    def _end_for(self, subscription: Subscription, cursor: int | None) -> int | None:
        """Do as :meth:`end_of` does, and ask the log if need be. Raises LogUnavailable."""
        channels = subscription.channels
        if cursor is not None and cursor > self._window.position:
            # From a worker that has read more than this one, perhaps the end.
            closed = self._flights.do(channels, lambda: offload(self._log.closed, channels))
            return max(closed.values()) if len(closed) == len(channels) else 0
        self._learn(channels)
        with self._lock:
            return self.end_of(subscription)

    def _only_markers(self, subscription: Subscription, cursor: int, end: int) -> bool:
        """Tell whether only markers follow on a plain stream, to which these are comments.

        Its client has no id of theirs, so without this it would come again for ever.
        """
        if not subscription.plain or end > self._window.position:
            return False
        page = self._replay.read_page(subscription, cursor, end)
        return page.position >= end and all(frame.event in MARKERS for frame in page.frames)

    # ── the log ─────────────────────────────────────────────────────────────────────────────────────────────

    def _learn(self, channels: Collection[str]) -> None:
        """Ask the log about the channels of which nothing is known. Raises LogUnavailable.

        Threat: ten thousand clients return, each with a channel of its own. So there is one question at a time, and
        whoever comes meanwhile joins the next one.
        """
        with self._lock:
            unknown = [name for name in channels if self._closing(name) is None]
            if not unknown:
                return
            turn = self._turn
            turn.names.update(unknown)
        self._flights.do(turn, lambda: self._ask(turn))

    def _ask(self, turn: _Turn) -> None:
        with self._asking:
            with self._lock:
                self._turn = _Turn()
                self._passed.clear()
                forgotten, names = self._forgotten, sorted(turn.names)
            closed: dict[str, int] = {}
            for begin in range(0, len(names), ASKED_AT_ONCE):
                closed |= offload(self._log.closed, names[begin : begin + ASKED_AT_ONCE])
            with self._lock:
                if forgotten != self._forgotten:
                    return
                if len(self._known) + len(names) > MOST_KNOWN:
                    self._known.clear()
                # What has passed meanwhile is newer than the answer may be.
                self._known.update((name, closed.get(name, 0)) for name in names if name not in self._passed)
