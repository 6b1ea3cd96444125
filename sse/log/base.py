"""What a log is: the one small protocol that every engine keeps, its errors, and its limits.

A log is a sequence of events in the order of their positions (`sse.events.model`). Appending is atomic and in order;
a position, once given out, is never given out again and nothing is ever inserted below it, so "read after p"
is all that live delivery, replay and resume need. The oldest events are trimmed away, and a log knows the
position through which that happened.

Engines run under threads and under gevent's monkey patching alike: they reach `threading`, `time` and
`select` through the modules at call time, so that waiting is cooperative where it has been made so, and
they import no gevent. An engine is opened by the process that uses it, after any fork.
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

# Rows that one call of `trim` removes at most: it holds the write lock that publishers wait for.
TRIM_BITE: Final = 500


class LogError(Exception):
    """Anything that a log has to say against a request."""


#: Whether an append that failed has stored its events: "no", or "unknown" where the answer was lost on the way.
Stored: TypeAlias = Literal["no", "unknown"]
STORED: Final[tuple[Stored, ...]] = get_args(Stored)


class LogUnavailable(LogError):
    """The log cannot be reached or written now.

    retry_after: seconds. stored: what is known of the append that raised this; "no" is for those who know it for
    certain. After "unknown" an append may be repeated with the idempotency key that it had: it is stored once.
    """

    def __init__(self, message: str, retry_after: float = 1.0, *, stored: Stored = "unknown") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.stored: Stored = stored


class LogReplaced(LogUnavailable):
    """The log is not the one that was followed so far: it was emptied, exchanged, or set back to an older copy.

    What was followed means nothing in it; the next call takes it as it is.
    """


class LogRefused(LogError):
    """What was found at a log's place is damaged, of another version, or not ours. It was left as it is."""


class IdempotencyConflict(LogError):
    """The same idempotency key came with another content."""


class Bounds(NamedTuple):
    """Positions that describe a log. In a new one `latest` and `trimmed` are its creation, in time.

    oldest: the oldest event that is held, None when there is none; latest: the newest that was ever given
    out; trimmed: the position through which events were trimmed: cursors below it have missed something. lost: an
    engine that can lose what it has acknowledged (a replica took over without it) says so with a position above all
    that was given out before: cursors below it may have missed something, though older events may still be held.
    complete: every event that this log was ever given is held, so a cursor below `trimmed` is from before it began.
    """

    oldest: int | None
    latest: int
    trimmed: int
    lost: int = 0
    complete: bool = False


class Batch(list[Record]):
    """A follower's batch of which more is known than its records. traces: of publishes that begin in it and are
    sampled. whole: nothing that came before it can have been trimmed unseen."""

    def __init__(self, records: Iterable[Record] = (), traces: Sequence[Trace] = (), *, whole: bool = False) -> None:
        super().__init__(records)
        self.traces = traces
        self.whole = whole


class Usage(NamedTuple):
    """How much a log takes, as far as its engine can know; None where it cannot.

    bytes: what it takes; free: how much more there is room for; oldest: position of the oldest event that is held.
    """

    bytes: int | None
    free: int | None
    oldest: int | None

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event was appended, unix seconds."""
        return None if self.oldest is None else (self.oldest >> SEQUENCE_BITS) / 1000


class Log(Protocol):
    """See the module's text. Every method may raise `LogUnavailable`, and may be called from any thread.

    channels: None stands for every channel. max_bytes: a read ends with the record whose data brings the
    sum of ``len(data)`` to this or beyond; so there is always at least one record if any matches, and a
    page that was cut can be told from the last one. (Characters, because counting them is free: one is 1 to
    4 bytes.)
    """

    shared: bool  # may several processes use it at once?
    notices_gaps: bool  # does `follow` raise `LogReplaced` when trimming has overtaken it?

    def append(
        self, events: Sequence[Event], *, key: str | None = None, digest: bytes = b"", trace: str | None = None
    ) -> list[int]:
        """Store events atomically and in order; return their positions once they would survive a ``kill -9``.

        key: idempotency, remembered for at least 600 s, by other workers and after restarts, too. The same
        key with the same `digest` stores nothing and returns the positions of the first time; with another
        one it raises `IdempotencyConflict`. No events: nothing is stored, not even the key.

        `LogUnavailable.stored` says whether the events may have been stored all the same.

        trace: a sampled traceparent (`sse.trace`), for followers that read the events while they are new.
        """
        ...

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        """The oldest records with a position > `after`, ascending, at most `limit`."""
        ...

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        """The newest records, ascending, at most `limit`."""
        ...

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        """None when at most `keep` events follow `after`; else the position that exactly `keep` of them
        follow."""
        ...

    def bounds(self) -> Bounds:
        """The log's bounds, all of one moment."""
        ...

    def usage(self) -> Usage:
        """What the log takes and has room for. May wait for a disk."""
        ...

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        """Yield what follows `after`, in batches and in order, for ever; [] at least once a second when
        quiet. A batch in which a traced publish begins is a `Batch`.

        Ends when `stop` is set (call `wake` to make that at once) or the log is closed.
        """
        ...

    def wake(self) -> None:
        """Make this process's followers look at once."""
        ...

    def trim(self) -> int:
        """Remove one bite of what retention no longer keeps; return its rows. Fewer than `TRIM_BITE`: that was all
        for now.

        For a background loop, outside of an event loop: it waits for the disk. Only one worker does the work.
        """
        ...

    def retain(self, events: int, seconds: float) -> None:
        """Have `trim` keep so much from now on."""
        ...

    def close(self) -> None:
        """Let go of everything; followers end. Idempotent."""
        ...
