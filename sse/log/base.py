"""The protocol that every log engine implements, its errors, and its limits.

A log is a sequence of events in the order of their positions (``sse.events.model``). Appending is atomic and in order;
a position, once given out, is never given out again and nothing is ever inserted below it, so "read after p"
is all that live delivery, replay and resume need. The oldest events are trimmed away, and a log knows the
position through which that happened.

Engines run under threads and under gevent's monkey patching alike: they reach ``threading``, ``time`` and
``select`` through the modules at call time, so that waiting is cooperative where gevent has
patched them, and they import no gevent. The process that uses an engine opens it, after any fork.
"""

from __future__ import annotations

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


class Bounds(NamedTuple):
    """Positions that describe a log. In a new log, ``latest`` and ``trimmed`` are the time of its creation.

    oldest: the oldest event that the log holds, None if it is empty.
    latest: the newest position ever given out.
    trimmed: events up to this position were trimmed; cursors below it have missed something.
    lost: 0, or a position above all that were given out before the engine lost acknowledged events (a replica took
    over without them); cursors below it may have missed something, though older events may still be held.
    complete: the log still holds every event it was ever given, so a cursor below ``trimmed`` is older than the log.
    """

    oldest: int | None
    latest: int
    trimmed: int
    lost: int = 0
    complete: bool = False


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

    channels: None stands for every channel.
    max_bytes: a read ends with the record that brings the sum of ``len(data)`` to this or beyond. So it returns at
    least one record if any matches, and a page that was cut can be told from the last one. (Characters, because
    counting them is free; one is 1 to 4 bytes.)
    """

    shared: bool  # True if several processes may use it at once
    notices_gaps: bool  # True if ``follow`` raises ``LogReplaced`` when trimming has overtaken it

    def append(
        self, events: Sequence[Event], *, key: str | None = None, digest: bytes = b"", trace: str | None = None
    ) -> list[int]:
        """Store events atomically and in order; return their positions once they would survive a ``kill -9``.

        key: an idempotency key, remembered for at least 600 s, also by other workers and across restarts. The same
        key with the same ``digest`` stores nothing and returns the first positions. Without events nothing is
        stored, not even the key.
        trace: a sampled traceparent (``sse.events.trace``), for followers that read the events while they are new.

        Raises ``IdempotencyConflict`` for a known key with another digest. ``LogUnavailable.stored`` says whether the
        events may have been stored all the same.
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

    def retain(self, events: int, seconds: float) -> None:
        """Change what ``trim`` keeps from now on."""
        ...

    def close(self) -> None:
        """Release everything, and end the followers. Idempotent."""
        ...
