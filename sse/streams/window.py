"""The window: the newest frames of the log, in memory and bounded in bytes.

It answers nearly every resume without the log, so that ten thousand clients which return after a rolling restart do not
each read it. Four positions describe it:

    floor     the window has every event of the log above it, through ``position``
    position  the newest position that the tailer has read
    trimmed   a cursor below it may have missed events that the log had trimmed before the window was filled
    lost      a cursor below it may have missed events that the log has lost (`sse.log.Bounds`)

A cursor at or above ``floor`` is served from here, an older one from the log. Frames are stored once, in order, and
indexed by channel: reading a quiet channel costs as much as that channel has, not as much as the window has. Patterns
have no index, because a name may match any number of them: for a pattern, the frames of all channels are looked at, a
bounded number for each page.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import merge
from operator import itemgetter
from typing import Final, NamedTuple

from ..events.markers import MARKERS
from ..events.patterns import is_pattern, matcher
from ..events.wire import Frame

# What a frame costs beside its wire bytes (tuple, ints, index entries); without it the bound would be wrong for small
# events.
FRAME_OVERHEAD_BYTES = 320

# Frames whose type or channel is checked in a row: 0.1 to 0.3 ms.
LOOK = 2000

# A list drops its evicted head once that is this long and more than half of the list: amortised constant time for an
# eviction, and at most twice the pointers.
COMPACT_AFTER = 256

_EVICTED: Final = Frame(0, "", None, b"")
_position = itemgetter(0)  # a frame's


class Page(NamedTuple):
    """Frames in order, and the position through which they are complete for their subscription."""

    frames: list[Frame]
    position: int


class _Run:
    """One channel's frames, oldest first; those before the index ``start`` are evicted."""

    __slots__ = ("frames", "positions", "start")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.positions: list[int] = []
        self.start = 0

    def after(self, position: int) -> int:
        return bisect_right(self.positions, position, self.start)

    def drop_through(self, position: int) -> bool:
        """Evict the frames through that position; return whether none is left."""
        self.start = self.after(position)
        if self.start == len(self.frames):
            return True
        if self.start >= COMPACT_AFTER and self.start * 2 > len(self.frames):
            del self.frames[: self.start], self.positions[: self.start]
            self.start = 0
        return False


def _cost(frame: Frame) -> int:
    """Return what a frame counts in the window's bound."""
    original = 0 if frame.original is None else frame.original.__sizeof__()
    return len(frame.wire) + original + FRAME_OVERHEAD_BYTES


def matches(frame: Frame, types: frozenset[str] | None) -> bool:
    """Tell whether a stream that asked for these event types (None = all) gets this frame.

    A frame without a type is a ``message`` (WHATWG HTML §9.2.6: an empty event type buffer dispatches as ``message``).
    Every stream gets the service's own markers.
    """
    return types is None or (frame.event or "message") in types or frame.event in MARKERS


class Window:
    """See the module's text. It takes no lock: the hub does.

    max_bytes: bound on wire bytes plus :data:`FRAME_OVERHEAD_BYTES` for each frame.
    """

    __slots__ = ("_frames", "_max_bytes", "_runs", "_start", "floor", "lost", "position", "size", "trimmed")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.lost = 0
        self.reset(0)

    def reset(self, position: int) -> None:
        """Empty the window; floor, position and trimmed are ``position`` then."""
        self._frames: list[Frame] = []
        self._start = 0  # those before this index are evicted
        self._runs: dict[str, _Run] = {}
        self.size = 0
        self.floor = position
        self.position = position
        self.trimmed = position

    def become(self, other: Window) -> None:
        """Take over the content of another window, which must not be used any more."""
        self._frames, self._start, self._runs, self.size = other._frames, other._start, other._runs, other.size
        self.floor, self.position = other.floor, other.position
        self.trimmed, self.lost = other.trimmed, other.lost

    def __len__(self) -> int:
        return len(self._frames) - self._start

    def extend(self, frames: Iterable[Frame]) -> None:
        """Add frames that follow ``position``, in ascending order, and evict the oldest beyond the bound."""
        frames = list(frames)
        if not frames:
            return
        held, runs, size = self._frames, self._runs, self.size
        held.extend(frames)
        size += FRAME_OVERHEAD_BYTES * len(frames)
        for frame in frames:
            position, channel, _, wire, original = frame
            run = runs.get(channel)
            if run is None:
                run = runs[channel] = _Run()
            run.frames.append(frame)
            run.positions.append(position)
            size += len(wire)
            if original is not None:
                size += original.__sizeof__()
        self.position, self.size = position, size
        if size > self._max_bytes:
            self._evict()

    def _evict(self) -> None:
        held, runs, size, start = self._frames, self._runs, self.size, self._start
        gone = set()
        while size > self._max_bytes and start < len(held):
            self.floor, channel, _, wire, original = held[start]
            held[start] = _EVICTED
            start += 1
            size -= len(wire) + FRAME_OVERHEAD_BYTES
            if original is not None:
                size -= original.__sizeof__()
            gone.add(channel)
        if start >= COMPACT_AFTER and start * 2 > len(held):
            del held[:start]
            start = 0
        self.size, self._start = size, start
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
        """Return a subscription's frames with ``after < position <= through``, in order.

        max_bytes: stop after the frame that reaches so many wire bytes, of all types. A page may be empty and still
        advance, if ``types`` excludes all that was read, or no frame that was looked at matches a pattern.
        """
        if any(map(is_pattern, channels)):
            return self._scan(channels, types, after, through, max_bytes)
        parts = []
        for channel in channels:
            run = self._runs.get(channel)
            if run is not None:
                first, last = run.after(after), run.after(through)
                if first < last:
                    parts.append(map(run.frames.__getitem__, range(first, last)))
        # merge is lazy, and few of a thousand busy channels have a frame in this page.
        frames, size = [], 0
        for frame in parts[0] if len(parts) == 1 else merge(*parts):
            if types is None or matches(frame, types):
                frames.append(frame)
            size += len(frame.wire)
            if size >= max_bytes:
                through = frame.position
                break
        return Page(frames, through)

    def _scan(
        self, channels: Collection[str], types: frozenset[str] | None, after: int, through: int, max_bytes: int
    ) -> Page:
        """Read a page with patterns: look at no more than :data:`LOOK` frames of any channels."""
        wanted = matcher(channels)
        begin = self._after(after)
        end = self._after(through)
        if end > begin + LOOK:
            end = begin + LOOK
            through = self._frames[end - 1].position
        frames, size = [], 0
        for frame in self._frames[begin:end]:
            if wanted(frame.channel):
                if types is None or matches(frame, types):
                    frames.append(frame)
                size += len(frame.wire)
                if size >= max_bytes:
                    through = frame.position
                    break
        return Page(frames, through)

    def _after(self, position: int) -> int:
        """Return the index of the first frame beyond a position."""
        return bisect_right(self._frames, position, self._start, key=_position)

    def newest(self, channel: str) -> Frame | None:
        """Return a channel's newest frame."""
        run = self._runs.get(channel)
        return None if run is None else run.frames[-1]

    def drop(self, channel: str, before: int) -> None:
        """Drop a channel's frames below a position. It costs as much as lies between the first and the last of them."""
        run = self._runs.get(channel)
        if run is None:
            return
        end = bisect_left(run.positions, before, run.start)
        erased = run.frames[run.start : end]
        if end == len(run.frames):
            del self._runs[channel]
        else:
            del run.frames[:end], run.positions[:end]
            run.start = 0
        if erased:
            begin, through = self._after(erased[0].position - 1), self._after(erased[-1].position)
            held = self._frames[begin:through]
            self._frames[begin:through] = [
                frame for frame in held if frame.channel != channel or frame.position >= before
            ]
            self.size -= sum(map(_cost, erased))

    def following(self, channels: Collection[str], after: int) -> Following:
        """Return a copy of what follows this position in some channels, to be searched without the lock."""
        if any(map(is_pattern, channels)):
            return Following([self._frames[self._after(after) :]], matcher(channels))
        runs = [run for channel in channels if (run := self._runs.get(channel)) is not None]
        return Following([run.frames[run.after(after) :] for run in runs])

    def keep_newest(self, channels: Collection[str], after: int, keep: int) -> int | None:
        """Return the position after which exactly ``keep`` frames of these channels, no patterns, follow.

        None if no more than ``keep`` follow ``after``.
        """
        return newest(
            [run.positions for channel in channels if (run := self._runs.get(channel)) is not None], after, keep
        )


class Following:
    """A copy of what followed a position in some channels.

    Types and patterns have no index, so each frame must be looked at: a whole window takes milliseconds.
    wanted: tells for which channels; None if the frames are of these channels only.
    """

    def __init__(self, runs: list[list[Frame]], wanted: Callable[[str], bool] | None = None) -> None:
        self._runs = runs
        self._wanted = wanted

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def keep_newest(self, types: frozenset[str] | None, after: int, keep: int, pause: Callable[[], None]) -> int | None:
        """`Window.keep_newest` for some event types (None = all).

        pause: lets others run; called about every :data:`LOOK` frames.
        """
        wanted = self._wanted or (lambda channel: True)
        found: list[list[int]] = []
        looked = 0
        for run in self._runs:
            positions: list[int] = []
            for begin in range(0, len(run), LOOK):
                frames = run[begin : begin + LOOK]
                positions += [frame.position for frame in frames if wanted(frame.channel) and matches(frame, types)]
                looked += len(frames)
                if looked >= LOOK:
                    looked = 0
                    pause()
            found.append(positions)
        return newest(found, after, keep)


def newest(runs: Sequence[Sequence[int]], after: int, keep: int) -> int | None:
    """Return the position above which exactly ``keep`` of these positions lie; None if no more lie above ``after``.

    runs: each ascending. A binary search over positions: a few dozen steps, however long the runs are.
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
