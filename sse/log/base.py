"""The protocol that every log engine implements, its errors, and its limits.

A log is a sequence of events in the order of their positions (``sse.events.model``). Appending is atomic and in order;
a position, once given out, is never given out again and nothing is ever inserted below it, so "read after p"
is all that live delivery, replay and resume need. Events are trimmed away by rules, and a log knows, for each channel,
the position through which that happened.

**Channels.** ``channels`` is everywhere a collection of *selectors*: names and patterns (``sse.events.patterns``). A
channel may be *closed*, which refuses further events, and *erased*, which removes its events and reopens it. Both leave
a *marker* (``sse.events.markers``), a record of that channel: it is read, followed and trimmed like an event, but it is
never counted as one.

Engines run under threads and under gevent's monkey patching alike: they reach ``threading``, ``time`` and
``select`` through the modules at call time, so that waiting is cooperative where gevent has
patched them, and they import no gevent. The process that uses an engine opens it, after any fork.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, get_args

from ..events.model import SEQUENCE_BITS, Event, Record
from ..events.trace import Trace

# Ten minutes are promised for a repeated Idempotency-Key; the rest is for clocks that are set meanwhile.
IDEMPOTENCY_SECONDS: Final = 900

# A quiet log's follower reports at least this often (seconds): readiness judges the age of its last report.
QUIET_SECONDS: Final = 1.0

# Bounds on what a follower hands over at once. Reading it holds up an event loop: about 2 ms.
FOLLOW_RECORDS: Final = 1000
FOLLOW_CHARS: Final = 1024 * 1024

# An append of more events than this is done in a thread of its own under gevent, so that the loop goes on.
OFFLOAD_EVENTS: Final = 100

# Rows that one call of ``trim`` removes at most: it holds the write lock that publishers wait for.
TRIM_BITE: Final = 500

# A rule's count trims no event sooner than this after it was stored, seconds: a follower is not overtaken meanwhile.
RULE_GRACE: Final = 2.0

# What a log remembers of channels that have nothing left, so that ``gone`` stays exact: for how long, and of how many.
GONE_SECONDS: Final = 30 * 86_400
GONE_MOST: Final = 100_000

# ``channels`` lists at most so many at once.
CHANNELS_MOST: Final = 1000


class LogError(Exception):
    """Base class of what a log raises."""


#: Whether a failed append stored its events: "no", or "unknown" when the answer was lost on the way.
Stored: TypeAlias = Literal["no", "unknown"]
STORED: Final[tuple[Stored, ...]] = get_args(Stored)


class LogUnavailable(LogError):
    """The log cannot be reached or written now.

    retry_after: seconds.
    stored: "no" only if the append certainly stored nothing. After "unknown", repeat it with the same idempotency key:
    it is stored once.
    """

    def __init__(self, message: str, retry_after: float = 1.0, *, stored: Stored = "unknown") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.stored: Stored = stored


class LogReplaced(LogUnavailable):
    """The log is no longer the one that was followed: it was emptied, exchanged, or set back to an older copy.

    Positions of the old log mean nothing in the new one. The next call accepts the log as it is.
    """


class LogRefused(LogError):
    """What was found in the log's place is damaged, of another version, or not ours. It was not changed."""


class IdempotencyConflict(LogError):
    """An idempotency key was used again with different content."""


class ChannelClosed(LogError):
    """The channel is closed: until it is erased, nothing can be published to it, and it cannot be closed again."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"the channel {channel} is closed")
        self.channel = channel


class Bounds(NamedTuple):
    """Positions that describe a log. In a new log, ``latest``, ``trimmed`` and ``began`` are the time of its creation.

    oldest: the oldest record that the log holds, None if it is empty.
    latest: the newest position ever given out.
    trimmed: the highest position that was ever trimmed, of whichever channel. A cursor at or above it has missed
    nothing by trimming; whether one below it has, ``Log.gone`` knows. (Erased records are not trimmed: a marker is
    above them.)
    lost: 0, or a position above all that were given out before the engine lost acknowledged events (a replica took
    over without them); cursors below it may have missed something, though older events may still be held.
    began: a cursor below this position is from before this log; 0 if that is unknown.
    erased: the marker of the newest erasure, which may have been trimmed; 0 if nothing was erased.
    """

    oldest: int | None
    latest: int
    trimmed: int
    lost: int = 0
    began: int = 0
    erased: int = 0

    @property
    def complete(self) -> bool:
        """The log has trimmed and lost nothing, so a cursor below ``trimmed`` is older than the log."""
        return self.trimmed == self.began and not self.lost


class RetainRule(NamedTuple):
    """What to keep of each channel that a pattern, or a name, matches; None for no limit.

    events: of each channel, its newest records. The ``end_marker`` of a closed channel is kept beside them.
    seconds: a record's age.
    """

    pattern: str
    events: int | None
    seconds: float | None


class Erased(NamedTuple):
    """What ``erase`` has done.

    events: how many were removed, without markers.
    through: the position of the marker that took their place.
    """

    events: int
    through: int


class ChannelInfo(NamedTuple):
    """A channel, and what the log holds of it. Markers do not count.

    bytes: of the events' data, in UTF-8.
    oldest, latest: positions of its events, None without any.
    """

    channel: str
    events: int
    bytes: int
    oldest: int | None
    latest: int | None
    closed: bool


class _Any(enum.Enum):
    ANY = "whatever the note says now"


#: For ``Log.put_note``: put it whatever it says now.
ANY: Final = _Any.ANY
Expected: TypeAlias = str | None | Literal[_Any.ANY]


class Batch(list[Record]):
    """A follower's batch, with more than its records.

    traces: those of sampled publishes that begin in the batch.
    whole: True if nothing before it can have been trimmed unseen.
    """

    def __init__(self, records: Iterable[Record] = (), traces: Sequence[Trace] = (), *, whole: bool = False) -> None:
        super().__init__(records)
        self.traces = traces
        self.whole = whole


class Usage(NamedTuple):
    """How much room a log takes; None for what its engine cannot know.

    bytes: the log's size.
    free: bytes that are still free.
    oldest: the position of the oldest event that the log holds.
    """

    bytes: int | None
    free: int | None
    oldest: int | None

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event was appended, unix seconds."""
        return None if self.oldest is None else (self.oldest >> SEQUENCE_BITS) / 1000


class Log(Protocol):
    """A log, as the module's text describes it. Every method may raise ``LogUnavailable``; any thread may call it.

    channels: names and patterns. A name may be a reserved one, but no pattern matches those. None stands for every
    record, reserved channels' too.
    max_bytes: a read ends with the record that brings the sum of ``len(data)`` to this or beyond. So it returns at
    least one record if any matches, and a page that was cut can be told from the last one. (Characters, because
    counting them is free; one is 1 to 4 bytes.)
    """

    shared: bool  # True if several processes may use it at once
    notices_gaps: bool  # True if ``follow`` raises ``LogReplaced`` when trimming has overtaken it

    def append(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        digest: bytes = b"",
        trace: str | None = None,
        close: Collection[str] = (),
    ) -> list[int]:
        """Store events atomically and in order; return their positions once they would survive a ``kill -9``.

        key: an idempotency key, remembered for at least 600 s, also by other workers and across restarts. The same
        key with the same ``digest`` stores nothing and returns the first positions, even if a channel has been closed
        since. Without events and ``close`` nothing is stored, not even the key.
        trace: a sampled traceparent (``sse.events.trace``), for followers that read the events while they are new.
        close: channels (names) to close with these events. Each gets an ``end_marker``, after all events, in the order
        of their names; its position is returned behind those of the events, and is the channel's closing position.

        Raises ``IdempotencyConflict`` for a known key with another digest; ``ChannelClosed``, having stored nothing,
        if a channel of ``events`` or ``close`` is closed already. ``LogUnavailable.stored`` says whether the events may
        have been stored all the same.
        """
        ...

    def erase(self, channel: str) -> Erased:
        """Remove every record of a channel, open it if it was closed, and store an ``erased_marker``, all at once.

        Returns when no byte of the data is left in the log's files or memory: not in free pages either, nor in the rest
        of records that were trimmed before. Other processes' windows are not the log's. What idempotency keys remember
        is a hash. It may take seconds: call it outside an event loop. A channel without records gets a marker, too, as
        workers may still hold what the log has trimmed.

        Raises ``LogUnavailable``. ``stored`` is "no" if nothing was removed. After "unknown" erase it again: the
        records may be there, or be gone with bytes of them left (the message says what is known).
        """
        ...

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Return the oldest records with a position > ``after``, ascending, at most ``limit``."""
        ...

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        """Return the newest records, ascending, at most ``limit``."""
        ...

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        """Return the position that exactly ``keep`` events follow, None if at most ``keep`` follow ``after``."""
        ...

    def bounds(self) -> Bounds:
        """Return the log's bounds, read at one moment."""
        ...

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        """Return the highest position > ``after`` at which a record of these channels was trimmed; 0 for none.

        Records that were erased are not trimmed. Exact for each channel, except where a log cannot know: for what was
        trimmed before this was recorded, by an older program, by hand, or longer ago than it remembers of a channel
        that has nothing left (``GONE_SECONDS``, ``GONE_MOST``). There it answers with the position through which that
        has happened to any channel: it may say that something is gone that never was, but never the other way round.
        """
        ...

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        """Return which of these names are closed, with their closing positions. Patterns are passed over."""
        ...

    def channels(self, prefix: str = "", after: str = "", limit: int = CHANNELS_MOST) -> list[ChannelInfo]:
        """Return the channels whose names begin with ``prefix`` and sort behind ``after``, by code point.

        Those that hold events or are closed, without reserved ones; at most ``limit``. It does not read the log's
        events, however many there are.
        """
        ...

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Expected = ANY) -> bool:
        """Put a note, or replace it: a small value that all workers see, until it expires or is dropped.

        kind, name: short, without line ends.
        value: up to some kilobytes.
        seconds: until it expires, by the log's clock.
        expected: put it only if the present value is this one; None: only if there is none.

        Return whether it was put.
        """
        ...

    def notes(self, kind: str) -> dict[str, str]:
        """Return the notes of this kind that have not expired, by name."""
        ...

    def drop_note(self, kind: str, name: str) -> None:
        """Remove a note if there is one."""
        ...

    def usage(self) -> Usage:
        """Return the log's size and free room. May wait for a disk."""
        ...

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        """Yield what follows ``after``, in batches and in order; [] at least once a second while the log is quiet.

        A batch in which a traced publish begins is a ``Batch``. Ends when ``stop`` is set (then call ``wake``, so that
        it ends at once) or the log is closed.
        """
        ...

    def wake(self) -> None:
        """Make this process's followers look at once."""
        ...

    def trim(self) -> int:
        """Remove one bite of what retention no longer keeps, and return its number of rows.

        Fewer than ``TRIM_BITE`` rows: nothing is left to trim for now. It waits for the disk, so call it outside an
        event loop. Only one worker does the work.
        """
        ...

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        """Change what ``trim`` keeps from now on.

        rules: the first whose pattern matches a channel decides what is kept of it. Its count is for each channel, and
        trims no event before ``RULE_GRACE``.
        events, seconds: for the channels that no rule matches; the count is over all of these together, markers too.
        """
        ...

    def close(self) -> None:
        """Release everything, and end the followers. Idempotent."""
        ...
