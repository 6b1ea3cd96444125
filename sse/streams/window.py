"""The window: the newest events of the log, in memory and bounded in bytes.

It answers nearly every resume without the log, so that ten thousand clients which return after a rolling restart do not
each read it. Four positions describe it:

    floor     the window has every event of the log above it, through ``position``
    position  the newest position that the tailer has read
    trimmed   a cursor below it may have missed events that the log had trimmed before the window was filled
    lost      a cursor below it may have missed events that the log has lost (`sse.log.Bounds`)

A cursor at or above ``floor`` is served from here, an older one from the log. Events are stored once, in order, and
indexed by channel: reading a quiet channel costs as much as that channel has, not as much as the window has. Patterns
have no index, because a name may match any number of them: for a pattern, the events of all channels are looked at, a
bounded number for each page.

An *item* of the window is an event's frame, or its record while nobody in this worker has asked for it. Most events of
a busy log are for other workers' streams, and encoding is a good part of what they cost here. The first page that has
such an event encodes it, and the frame takes the record's place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import merge
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from ..events.batch import FEW
from ..events.markers import MARKERS
from ..events.model import Record
from ..events.patterns import is_pattern, matcher
from ..events.wire import Frame, encode_frame

# Both begin with position, channel and type.
Item: TypeAlias = Frame | Record

# What an event costs beside its wire bytes or its data (tuple, ints, index entries); without it the bound would be
# wrong for small events.
FRAME_OVERHEAD_BYTES = 320

# Events whose type or channel is checked in a row: 0.1 to 0.3 ms.
LOOK = 2000

# A list longer than this drops its evicted head once that is more than half of it: amortised constant time for an
# eviction, and at most twice the pointers.
COMPACT_AFTER = 256

# An eviction makes room for this part of the window: it looks once at each channel that it evicts something of.
EVICTED_SHARE = 64

_EVICTED: Final = Frame(0, "", None, b"")
_position = itemgetter(0)  # an item's
_channel = itemgetter(1)  # an item's
_wire = itemgetter(3)  # a frame's
_last = itemgetter(4)  # a record's data, or a frame's original


class Page(NamedTuple):
    """Frames in order, and the position through which they are complete for their subscription."""

    frames: list[Frame]
    position: int


class _Runs(dict[str, list[Item]]):
    """Each channel's items, oldest first. A channel without any begins with an empty list."""

    def __missing__(self, channel: str) -> list[Item]:
        run = self[channel] = []
        return run


def size_of(item: Item) -> int:
    """Return the bytes of an item that depend on its content: of its wire, or of its data if it is not encoded."""
    if isinstance(item, Record):
        return item.data.__sizeof__()
    return len(item.wire) if item.original is None else len(item.wire) + item.original.__sizeof__()


def data_of(item: Item) -> str:
    """Return an event's data as it was published."""
    return item.data if isinstance(item, Record) else item.text()


def _size_of_all(items: Sequence[Item]) -> int:
    """Return what these items count in the window's bound: `size_of` of each, at a fifth of the cost."""
    if len(items) < FEW:
        return sum(map(size_of, items)) + FRAME_OVERHEAD_BYTES * len(items)
    frames = [item for item in items if type(item) is Frame]
    if not frames:
        size = sum(map(str.__sizeof__, map(_last, items)))
    elif len(frames) == len(items):
        originals = filter(None, map(_last, frames))
        size = sum(map(len, map(_wire, frames))) + sum(map(str.__sizeof__, originals))
    else:
        size = sum(map(size_of, items))
    return size + FRAME_OVERHEAD_BYTES * len(items)


def matches(item: Item, types: frozenset[str] | None) -> bool:
    """Tell whether a stream that asked for these event types (None = all) gets this event.

    An event without a type is a ``message`` (WHATWG HTML §9.2.6: an empty event type buffer dispatches as ``message``).
    Every stream gets the service's own markers.
    """
    return types is None or (item[2] or "message") in types or item[2] in MARKERS


class Window:
    """See the module's text. It takes no lock: the hub does.

    max_bytes: bound on the :func:`size_of` all items, plus :data:`FRAME_OVERHEAD_BYTES` for each.
    """

    __slots__ = ("_items", "_max_bytes", "_runs", "_start", "_starts", "floor", "lost", "position", "size", "trimmed")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.lost = 0
        self.reset(0)

    def reset(self, position: int) -> None:
        """Empty the window; floor, position and trimmed are ``position`` then."""
        self._items: list[Item] = []
        self._start = 0  # those before this index are evicted
        self._runs = _Runs()
        self._starts: dict[str, int] = {}  # the same for the channels' items; 0 for those that are not here
        self.size = 0
        self.floor = position
        self.position = position
        self.trimmed = position

    def become(self, other: Window) -> None:
        """Take over the content of another window, which must not be used any more."""
        self._items, self._start, self.size = other._items, other._start, other.size
        self._runs, self._starts = other._runs, other._starts
        self.floor, self.position = other.floor, other.position
        self.trimmed, self.lost = other.trimmed, other.lost

    def __len__(self) -> int:
        return len(self._items) - self._start

    def extend(self, items: Iterable[Item]) -> None:
        """Add what follows ``position``, in ascending order, and evict the oldest beyond the bound."""
        items = list(items)
        if not items:
            return
        runs = self._runs
        self._items.extend(items)
        for item in items:
            runs[item[1]].append(item)
        self.size += _size_of_all(items)
        self.position = items[-1][0]
        if self.size > self._max_bytes:
            self._evict()

    def _evict(self) -> None:
        """Evict the oldest items, so many that a 64th of the window is free."""
        held, start, runs = self._items, self._start, self._runs
        target = self._max_bytes - self._max_bytes // EVICTED_SHARE
        size, end = self.size, start
        while size > target and end < len(held):
            item = held[end]
            size -= (item[4].__sizeof__() if type(item) is Record else size_of(item)) + FRAME_OVERHEAD_BYTES
            end += 1
        self.size = size
        self.floor = held[end - 1][0]
        for channel, count in Counter(map(_channel, held[start:end])).items():
            run, first = runs[channel], self._starts.pop(channel, 0) + count
            if first == len(run):
                del runs[channel]
            elif len(run) <= COMPACT_AFTER or first * 2 > len(run):
                del run[:first]
            else:
                run[first - count : first] = [_EVICTED] * count
                self._starts[channel] = first
        if len(held) <= COMPACT_AFTER or end * 2 > len(held):
            del held[:end]
            self._start = 0
        else:
            held[start:end] = [_EVICTED] * (end - start)
            self._start = end

    def _after_in(self, channel: str, run: list[Item], position: int) -> int:
        """Return the index of a channel's first item beyond a position."""
        return bisect_right(run, position, self._starts.get(channel, 0), key=_position)

    def _frame(self, item: Item) -> Frame:
        """Return an item's frame; a record is encoded, and the frame takes its place."""
        if isinstance(item, Frame):
            return item
        frame = encode_frame(item)
        run = self._runs[item.channel]
        run[self._after_in(item.channel, run, item.position) - 1] = frame
        self._items[self._after(item.position) - 1] = frame
        self.size += size_of(frame) - size_of(item)
        return frame

    def read(
        self,
        channels: Collection[str],
        types: frozenset[str] | None,
        after: int,
        through: int,
        max_bytes: int,
    ) -> Page:
        """Return a subscription's frames with ``after < position <= through``, in order.

        max_bytes: stop after the event that reaches so many bytes, with those that ``types`` excludes. A page may be
        empty and still advance, if ``types`` excludes all that was read, or no event that was looked at matches a
        pattern.
        """
        if any(map(is_pattern, channels)):
            return self._scan(channels, types, after, through, max_bytes)
        parts = []
        for channel in channels:
            run = self._runs.get(channel)
            if run is not None:
                first, last = self._after_in(channel, run, after), self._after_in(channel, run, through)
                if first < last:
                    parts.append(map(run.__getitem__, range(first, last)))
        # merge is lazy, and few of a thousand busy channels have an event in this page.
        return self._page(parts[0] if len(parts) == 1 else merge(*parts), types, through, max_bytes)

    def _scan(
        self, channels: Collection[str], types: frozenset[str] | None, after: int, through: int, max_bytes: int
    ) -> Page:
        """Read a page with patterns: look at no more than :data:`LOOK` frames of any channels."""
        wanted = matcher(channels)
        begin = self._after(after)
        end = self._after(through)
        if end > begin + LOOK:
            end = begin + LOOK
            through = self._items[end - 1][0]
        found = [item for item in self._items[begin:end] if wanted(item[1])]
        return self._page(found, types, through, max_bytes)

    def _page(self, items: Iterable[Item], types: frozenset[str] | None, through: int, max_bytes: int) -> Page:
        """Encode what a page has of these items; ``read`` has the bound."""
        frames, size = [], 0
        for item in items:
            if types is None or matches(item, types):
                frame = item if isinstance(item, Frame) else self._frame(item)
                frames.append(frame)
                size += len(frame.wire)
            else:
                size += size_of(item)
            if size >= max_bytes:
                through = item[0]
                break
        if self.size > self._max_bytes:  # a frame may be larger than its record was
            self._evict()
        return Page(frames, through)

    def _after(self, position: int) -> int:
        """Return the index of the first item beyond a position."""
        return bisect_right(self._items, position, self._start, key=_position)

    def newest(self, channel: str) -> Item | None:
        """Return a channel's newest event, encoded or not."""
        run = self._runs.get(channel)
        return None if run is None else run[-1]

    def drop(self, channel: str, before: int) -> None:
        """Drop a channel's events below a position. It costs as much as lies between the first and the last of them."""
        run = self._runs.get(channel)
        if run is None:
            return
        start = self._starts.pop(channel, 0)
        end = bisect_left(run, before, start, key=_position)
        erased = run[start:end]
        if end == len(run):
            del self._runs[channel]
        else:
            del run[:end]
        if erased:
            begin, through = self._after(erased[0][0] - 1), self._after(erased[-1][0])
            held = self._items[begin:through]
            self._items[begin:through] = [item for item in held if item[1] != channel or item[0] >= before]
            self.size -= _size_of_all(erased)

    def following(self, channels: Collection[str], after: int) -> Following:
        """Return a copy of what follows this position in some channels, to be searched without the lock."""
        if any(map(is_pattern, channels)):
            return Following([self._items[self._after(after) :]], matcher(channels))
        runs = [(channel, run) for channel in channels if (run := self._runs.get(channel)) is not None]
        return Following([run[self._after_in(channel, run, after) :] for channel, run in runs])

    def keep_newest(self, channels: Collection[str], after: int, keep: int) -> int | None:
        """Return the position after which exactly ``keep`` frames of these channels, no patterns, follow.

        None if no more than ``keep`` follow ``after``.
        """
        return newest([run for channel in channels if (run := self._runs.get(channel)) is not None], after, keep)


class Following:
    """A copy of what followed a position in some channels.

    Types and patterns have no index, so each frame must be looked at: a whole window takes milliseconds.
    wanted: tells for which channels; None if the frames are of these channels only.
    """

    def __init__(self, runs: list[list[Item]], wanted: Callable[[str], bool] | None = None) -> None:
        self._runs = runs
        self._wanted = wanted

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def keep_newest(self, types: frozenset[str] | None, after: int, keep: int, pause: Callable[[], None]) -> int | None:
        """`Window.keep_newest` for some event types (None = all).

        pause: lets others run; called about every :data:`LOOK` frames.
        """
        wanted = self._wanted or (lambda channel: True)
        found: list[list[Item]] = []
        looked = 0
        for run in self._runs:
            matching: list[Item] = []
            for begin in range(0, len(run), LOOK):
                items = run[begin : begin + LOOK]
                matching += [item for item in items if wanted(item[1]) and matches(item, types)]
                looked += len(items)
                if looked >= LOOK:
                    looked = 0
                    pause()
            found.append(matching)
        return newest(found, after, keep)


def newest(runs: Sequence[Sequence[Item]], after: int, keep: int) -> int | None:
    """Return the position above which exactly ``keep`` of these items lie; None if no more lie above ``after``.

    runs: each ascending. A binary search over positions: a few dozen steps, however long the runs are.
    """

    def above(position: int) -> int:
        return sum(len(run) - bisect_right(run, position, key=_position) for run in runs)

    if above(after) <= keep:
        return None
    low, high = after, max(run[-1][0] for run in runs if run)
    while high - low > 1:
        middle = (low + high) // 2
        if above(middle) > keep:
            low = middle
        else:
            high = middle
    return high
