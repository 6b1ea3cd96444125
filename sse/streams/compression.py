"""Shared compression: the chunk of a group of gzip streams is compressed once for all of them.

Theory of operation. Streams with gzip have groups of their own. A chunk of such a group has at most two forms:

    shared  made by the compressor of the group's *epoch*; it refers back to the chunks since the epoch began. Deflate
            counts distances in a stream's own output (RFC 1951 §2), so this form is only for streams that were sent
            exactly these chunks, and nothing else, since then: those *inside* the epoch.
    alone   refers to nothing. It is for all others: streams that joined since, lagged, or were sent something of their
            own. They wait for the next epoch, which begins with all live streams inside.

So no stream has a compressor, and a group has one only while events arrive. What the end of a stream says of its text
follows from the group's running sums (:class:`sse.streams.gzip_stream.GzipStream`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ..events import gzipped
from ..events.chunked import encode_chunk
from ..events.gzipped import Sums

# How a stream's bytes are coded: the index of those that it is sent, in a chunk's ``wires``.
BODY: Final = 0  # as they are; the connection's end is their end (HTTP/1.0)
CHUNKED: Final = 1  # as one chunk (RFC 9112 §7.1)
ALONE: Final = 2  # gzip, in one chunk: the form of its own
SHARED: Final = 3  # gzip, in one chunk: the shared form

# For a form that was not made. Writing it raises TypeError, which ends the stream; b"" would count as sent.
NOT_MADE: Final[Any] = None

# An epoch of this many bytes of text may end if a stream waits for the next one. Its first events compress badly:
# epochs of 200 events of 150 bytes take 4 % more bytes than one without end.
EPOCH_BYTES: Final = 32 * 1024
# So may one of this many seconds: with few events, what a new epoch costs is little.
EPOCH_SECONDS: Final = 10.0
# An epoch without events for this long gives its compressor back; more than the usual 15 s between two heartbeats, so
# that those of a quiet group stay small.
EPOCH_IDLE: Final = 30.0
# Limit on the epochs of one worker, whose compressors take 96 KB each. Other groups are sent the form of its own: with
# thousands of groups most have one stream, or few, and compressing twice would gain little.
MAX_EPOCHS: Final = 64


class Compression:
    """The compression of one group.

    live: the group's live streams, all of them GzipStreams.

    sums    of all that the live streams were sent since the group began
    before  the same without the newest chunk
    inside  how many live streams were sent the whole epoch
    beat    True: a heartbeat is due, which is a chunk for all
    """

    __slots__ = ("_began", "_compressor", "_epochs", "_live", "_size", "beat", "before", "inside", "sums")

    def __init__(self, epochs: Epochs, live: Sequence[Any]) -> None:
        self._epochs = epochs
        self._live = live
        self._compressor: Any = None
        self._began = 0.0  # monotonic seconds
        self._size = 0  # bytes of text in this epoch
        self.sums = self.before = Sums()
        self.inside = 0
        self.beat = False

    def __len__(self) -> int:
        """Return the number of live streams."""
        return len(self._live)

    def join(self, stream: Any) -> None:
        """Count a stream that becomes live."""
        stream.count_from(self.sums)

    def leave(self, stream: Any) -> None:
        """Stop counting a stream that was sent everything through the newest chunk, or less (:meth:`unsent`)."""
        if stream.coding == SHARED:
            self.inside -= 1
        stream.coding = ALONE
        stream.count_to(self.sums)

    def unsent(self, stream: Any) -> None:
        """Take the newest chunk off a stream's account: it leaves without it."""
        stream.count_to(self.before)

    def encode(self, text: bytes, now: float, pause: Callable[[], None], *, event: bool = True) -> tuple[Any, ...]:
        """Compress the next chunk; return its ``wires``.

        now: monotonic seconds. pause: called after each slice of a long text, and may let other greenlets run. Streams
        may leave then, but none may join. event: False for a heartbeat, which begins no epoch. After an exception the
        epoch is over, and the chunk must be sent to nobody.
        """
        self.before, self.sums = self.sums, self.sums.plus(text)
        if event:
            self._turn(len(text), now)
        elif self._compressor is None:
            self._all_wait()
        shared = alone = NOT_MADE
        compressor = self._compressor  # another greenlet may close the epoch meanwhile
        try:
            if self.inside < len(self._live):
                alone = encode_chunk(gzipped.alone(text, pause))
            if self.inside:
                self._size += len(text)
                shared = encode_chunk(gzipped.piece(compressor, text, pause))
        except BaseException:
            self.close()
            raise
        return NOT_MADE, NOT_MADE, alone, shared

    def _turn(self, size: int, now: float) -> None:
        """Begin an epoch before a chunk of ``size`` bytes if that is worth it."""
        if self._compressor is None:
            self._all_wait()
        waiting = len(self._live) - self.inside
        due = waiting >= self.inside or self._size + size > EPOCH_BYTES or now - self._began > EPOCH_SECONDS
        if waiting and due and (self._compressor is not None or self._epochs.has_room(self, now)):
            self._compressor = gzipped.compressor()
            self._began, self._size = now, 0
            for stream in self._live:
                stream.coding = SHARED
            self.inside = len(self._live)
        if self._compressor is not None:
            self._epochs.use(self, now)

    def _all_wait(self) -> None:
        for stream in self._live if self.inside else ():
            stream.coding = ALONE
        self.inside = 0

    def close(self) -> None:
        """End the epoch, and give its compressor back. A pass that is under way may go on."""
        self._epochs.forget(self)
        self._compressor = None


class Epochs:
    """One worker's epochs, at most MAX_EPOCHS."""

    def __init__(self) -> None:
        self._used: dict[Compression, float] = {}  # monotonic seconds; the one that was used last is last

    def __len__(self) -> int:
        return len(self._used)

    def use(self, compression: Compression, now: float) -> None:
        self._used.pop(compression, None)
        self._used[compression] = now

    def forget(self, compression: Compression) -> None:
        self._used.pop(compression, None)

    def has_room(self, compression: Compression, now: float) -> bool:
        """Make room for an epoch of this group; False if there is none: those of smaller groups would have to end."""
        self.end_idle(now)
        if len(self._used) >= MAX_EPOCHS:
            oldest = next(iter(self._used))
            if len(oldest) >= len(compression):
                return False
            oldest.close()
        return True

    def end_idle(self, now: float) -> None:
        """End the epochs that had no events for EPOCH_IDLE seconds."""
        while self._used:
            compression = next(iter(self._used))
            if now - self._used[compression] < EPOCH_IDLE:
                return
            compression.close()
