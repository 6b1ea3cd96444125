"""One follower of a SQLite log: it is handed the commits of its own process, and reads the rest.

A publisher knows, inside its transaction, which position was the last before its own. So what it commits can be handed
to the followers of its process as *"after position p came these"*, and a follower that stands at p need not read them
back. If it stands elsewhere, because another process has committed in between or too much was queued, it reads the
file as usual. Handing over is only a shortcut to the same rows in the same order.

It reads one statement at a time: an open one would keep the write-ahead log from shrinking.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from ...events.model import Record
from ...events.trace import Trace
from ..base import FOLLOW_CHARS, FOLLOW_RECORDS, QUIET_SECONDS, Batch
from .file import patiently
from .read import all_rows, page, size_of
from .wakeup import Wakeup

# Limits on what is queued for a follower: records, and characters of data. A follower further behind reads the file.
_AHEAD_RECORDS: Final = 20 * FOLLOW_RECORDS
_AHEAD_CHARS: Final = 4 * FOLLOW_CHARS

_AFTER: Final = "SELECT * FROM events WHERE position > ? ORDER BY position LIMIT ?"
_TRACED: Final = "SELECT first, last, parent FROM traces WHERE first > ? AND first <= ? ORDER BY first"


class Commit(NamedTuple):
    """Records that one transaction has added, and the traces of the publishes among them.

    previous: the log's last position before them.
    size: characters of data.
    """

    previous: int
    records: Sequence[Record]
    traces: Sequence[Trace]
    size: int


class Follower:
    """A queue of commits: one thread at a time offers, one takes.

    look: True if the file must be read.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._ahead: deque[Commit] = deque()
        # Each is written by one side only; the difference is what is queued.
        self._offered = self._offered_chars = self._taken = self._taken_chars = 0
        self.look = True

    def offer(self, commit: Commit) -> None:
        """Queue a commit; call it in the order of commits."""
        count = len(commit.records)
        if (
            commit.size <= FOLLOW_CHARS
            and self._offered - self._taken + count <= _AHEAD_RECORDS
            and self._offered_chars - self._taken_chars + commit.size <= _AHEAD_CHARS
        ):
            self._offered += count
            self._offered_chars += commit.size
            self._ahead.append(commit)
        else:
            self.look = True
        self._wakeup.ring()

    def wake(self) -> None:
        """Make the follower look at once, from any thread."""
        self.look = True
        self._wakeup.ring()

    def take(self, after: int) -> Batch:
        """Take what follows ``after``, within a follower's bounds; empty if nothing does, or the file must be read."""
        ahead = self._ahead
        batch = Batch(whole=True)
        traces: list[Trace] = []
        size = 0
        while ahead:
            commit = ahead[0]
            if commit.previous > after:
                # The events between were committed by another process, or did not fit into the queue.
                self.look = self.look or not batch
                break
            if commit.previous == after:
                if batch and (len(batch) + len(commit.records) > FOLLOW_RECORDS or size + commit.size > FOLLOW_CHARS):
                    break
                batch += commit.records
                traces += commit.traces
                size += commit.size
                after = batch[-1].position
            self._taken += len(commit.records)
            self._taken_chars += commit.size
            ahead.popleft()
        batch.traces = traces
        return batch

    def batches(
        self, reader: sqlite3.Connection, after: int, over: Callable[[], bool], check: Callable[[], None]
    ) -> Iterator[list[Record]]:
        """Yield what follows ``after``, from what was handed over or else the file; see ``Log.follow``.

        over: says whether to end.
        check: called about once a second; what it raises ends it, too.

        Raises ``sqlite3.Error``.
        """
        quiet_at = check_at = 0.0  # the first batch is yielded at once, even if it is empty
        while not over():
            batch: list[Record] = self.take(after)
            now = time.monotonic()
            if not batch and (self.look or now >= quiet_at):
                self.look = False
                batch = _read(reader, after)
                # A full page means a backlog. Others get their turn between two of its pages.
                self.look = self.look or len(batch) == FOLLOW_RECORDS or size_of(batch) >= FOLLOW_CHARS
            if now >= check_at:
                check()
                check_at = now + QUIET_SECONDS
            if batch or now >= quiet_at:
                if batch:
                    after = batch[-1].position
                quiet_at = now + QUIET_SECONDS
                yield batch
                if self.look:
                    time.sleep(0)
            elif self._wakeup.wait(reader, max(quiet_at - time.monotonic(), 0)):
                self.look = True


def _read(reader: sqlite3.Connection, after: int) -> list[Record]:
    batch = patiently(page, reader, _AFTER, (after, FOLLOW_RECORDS), FOLLOW_CHARS)
    if batch:
        traces = patiently(all_rows, reader, _TRACED, (after, batch[-1].position))
        if traces:
            return Batch(batch, [Trace(*row) for row in traces])
    return batch


def commits(previous: int, records: Sequence[Record], traces: Sequence[Trace]) -> Iterator[Commit]:
    """Split what a transaction added into pieces that a follower may hand over at once if events are small."""
    for begin in range(0, len(records), FOLLOW_RECORDS):
        piece = records[begin : begin + FOLLOW_RECORDS]
        last = piece[-1].position
        begun = [trace for trace in traces if previous < trace.first <= last] if traces else traces
        yield Commit(previous, piece, begun, size_of(piece))
        previous = last
