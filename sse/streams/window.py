"""The window: the newest frames of the log, held in memory and bounded in bytes.

It answers nearly every resume without touching the log, so that ten thousand clients which come back
after a rolling restart do not each read it. Two facts describe it at any time:

    floor     every event that the log holds with  floor < position <= position  is in the window
    position  the newest position that the tailer has read
    lost      cursors below it may have missed events that the log has lost (`sse.log.Bounds`)

A cursor at or above ``floor`` is served from here; an older one is the log's business.
Frames are kept once, in order, and indexed by channel, so reading one quiet channel out of a busy log costs
what that channel holds, not what the window holds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import merge
from typing import NamedTuple

from ..events.model import Frame

# What a frame costs beside its wire bytes (tuple, ints, index entries), so that the bound in bytes is honest
# for small events, too.
FRAME_OVERHEAD_BYTES = 320

# Frames that are looked at in a row for their type: about 0.1 ms.
LOOK = 2000

# A channel's run drops its evicted head once that is this long and more than half of the list:
# amortised constant time per eviction, and at most twice the pointers.
COMPACT_AFTER = 256


class Page(NamedTuple):
    """Frames in order, and the position through which they are complete for their subscription."""

    frames: list[Frame]
    position: int


class _Run:
    """One channel's frames, oldest first; ``start`` is the index of the oldest one that is still held."""

    __slots__ = ("frames", "positions", "start")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.positions: list[int] = []
        self.start = 0

    def after(self, position: int) -> int:
        return bisect_right(self.positions, position, self.start)

    def drop_through(self, position: int) -> bool:
        """Forget the frames up to that position; say whether the run is empty now."""
        self.start = self.after(position)
        if self.start == len(self.frames):
            return True
        if self.start >= COMPACT_AFTER and self.start * 2 > len(self.frames):
            del self.frames[: self.start], self.positions[: self.start]
            self.start = 0
        return False


def matches(frame: Frame, types: frozenset[str] | None) -> bool:
    """Does a stream that asked for these event types get this frame? A frame without a type is a ``message``
    (WHATWG HTML §9.2.6: an empty event type buffer dispatches as ``message``)."""
    return types is None or (frame.event or "message") in types


class Window:
    """See the module's text. Not locked: its owner, the hub, is the only writer.

    max_bytes: bound on wire bytes plus :data:`FRAME_OVERHEAD_BYTES` per frame.
    """

    __slots__ = ("_frames", "_max_bytes", "_runs", "floor", "lost", "position", "size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.lost = 0
        self.reset(0)

    def reset(self, position: int) -> None:
        """Empty the window; it is complete from ``position`` on."""
        self._frames: deque[Frame] = deque()
        self._runs: dict[str, _Run] = {}
        self.size = 0
        self.floor = position
        self.position = position

    def become(self, other: Window) -> None:
        """Have what another window has, which is not used any more."""
        self._frames, self._runs, self.size = other._frames, other._runs, other.size
        self.floor, self.position, self.lost = other.floor, other.position, other.lost

    def __len__(self) -> int:
        return len(self._frames)

    def extend(self, frames: Iterable[Frame]) -> None:
        """Take in frames that follow ``position`` in ascending order, and forget the oldest beyond the bound."""
        frames = list(frames)
        if not frames:
            return
        held, runs, size = self._frames, self._runs, self.size
        held.extend(frames)
        size += FRAME_OVERHEAD_BYTES * len(frames)
        for frame in frames:
            position, channel, _, wire = frame
            run = runs.get(channel)
            if run is None:
                run = runs[channel] = _Run()
            run.frames.append(frame)
            run.positions.append(position)
            size += len(wire)
        self.position, self.size = position, size
        if size > self._max_bytes:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        held, runs, size = self._frames, self._runs, self.size
        gone = set()
        while size > self._max_bytes and held:
            self.floor, channel, _, wire = held.popleft()
            size -= len(wire) + FRAME_OVERHEAD_BYTES
            gone.add(channel)
        self.size = size
        for channel in gone:
            if runs[channel].drop_through(self.floor):
                del runs[channel]

    def read(
        self,
        channels: Collection[str],
        types: frozenset[str] | None,
        after: int,
        through: int,
        max_bytes: int,
    ) -> Page:
        """The frames of a subscription with ``after < position <= through``, in order, at most about
        ``max_bytes`` of wire bytes read (at least one frame). The page's position is how far it is complete: a page
        may be empty and still advance, when ``types`` keeps none of what was read."""
        parts = []
        for channel in channels:
            run = self._runs.get(channel)
            if run is not None:
                first, last = run.after(after), run.after(through)
                if first < last:
                    parts.append(map(run.frames.__getitem__, range(first, last)))
        # Lazily, and only as far as the page goes: of a thousand busy channels, most have no frame in it.
        frames, size = [], 0
        for frame in parts[0] if len(parts) == 1 else merge(*parts):
            if types is None or matches(frame, types):
                frames.append(frame)
            size += len(frame.wire)
            if size >= max_bytes:
                through = frame.position
                break
        return Page(frames, through)

    def following(self, channels: Collection[str], after: int) -> Following:
        """What of a subscription's channels follows this position now, to be looked at without the window."""
        runs = [run for channel in channels if (run := self._runs.get(channel)) is not None]
        return Following([run.frames[run.after(after) :] for run in runs])

    def keep_newest(self, channels: Collection[str], after: int, keep: int) -> int | None:
        """None when at most ``keep`` frames of these channels follow ``after``; else the position after which
        exactly ``keep`` of them follow."""
        return newest(
            [run.positions for channel in channels if (run := self._runs.get(channel)) is not None], after, keep
        )


class Following:
    """Frames of some channels that followed a position once: how many of them have a certain type?

    No index tells, so each has to be looked at: up to all that a window holds, which takes milliseconds.
    """

    def __init__(self, runs: list[list[Frame]]) -> None:
        self._runs = runs

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def keep_newest(self, types: frozenset[str], after: int, keep: int, pause: Callable[[], None]) -> int | None:
        """See `Window.keep_newest`. pause: called whenever :data:`LOOK` frames, or a few more, were looked at."""
        found: list[list[int]] = []
        looked = 0
        for run in self._runs:
            positions: list[int] = []
            for begin in range(0, len(run), LOOK):
                frames = run[begin : begin + LOOK]
                positions += [frame.position for frame in frames if matches(frame, types)]
                looked += len(frames)
                if looked >= LOOK:
                    looked = 0
                    pause()
            found.append(positions)
        return newest(found, after, keep)


def newest(runs: Sequence[Sequence[int]], after: int, keep: int) -> int | None:
    """None when at most ``keep`` of these positions lie above ``after``; else the one above which exactly ``keep`` do.

    runs: ascending. Halves the interval that the answer lies in: a few dozen steps, whatever the runs hold.
    """

    def above(position: int) -> int:
        return sum(len(run) - bisect_right(run, position) for run in runs)

    if above(after) <= keep:
        return None
    low, high = after, max(run[-1] for run in runs if run)
    while high - low > 1:
        middle = (low + high) // 2
        if above(middle) > keep:
            low = middle
        else:
            high = middle
    return high
