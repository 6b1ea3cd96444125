"""The board: one page of shared memory on which every worker of a pod writes how it is, so that whichever
worker answers a probe can speak for all of them.

The gunicorn master makes it before the first fork (anonymous shared memory: no file, no name, gone with the
last process), gives each worker a slot as it forks it and takes the slot back when it has reaped it. So
nobody competes for a slot, and each place has exactly one writer: the master writes the header and the slots
of workers that are not there yet or no more; a worker writes its own slot.

Reading without locks. A place holds two copies of its record, each with a sequence number and a checksum. The
writer overwrites the older copy; the reader takes both in and believes the newer one that is whole. A writer
that is stopped or killed in the middle of a write therefore costs its readers nothing: the other copy is
still there. (The usual seqlock has one copy, and a writer that dies with an odd number leaves its readers
waiting.) The checksum, not the order of the stores, is what proves a copy whole, because processors other
than x86 may reorder them.

Times are seconds of CLOCK_MONOTONIC, which is what :func:`time.monotonic` reads on Linux. It counts from boot
for all processes of the machine alike, so one process may compare its own reading with another's, and no
clock that is set or stepped can make a dead worker look alive.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import weakref
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from ..listeners import Name

if TYPE_CHECKING:
    from ..extension import Health

# A worker writes its slot this often, and is taken for dead, stopped or stuck once its slot is older than the
# second figure. Four beats may be missed, so that a busy moment is no alarm; and a probe at any moment shows
# a dead worker within three seconds of its death.
BEAT_INTERVAL: Final = 0.5
BEAT_MAX_AGE: Final = 2.5

BOOTING: Final = "booting"
RUNNING: Final = "running"
DRAINING: Final = "draining"
_STATES: Final = ("", BOOTING, RUNNING, DRAINING)

# Sequence number, then the fields, then CRC-32 of all before it.
_HEADER: Final = struct.Struct("<QQQQ")  # sequence, generation, expected, folds
_SLOT: Final = struct.Struct("<QQIBBxxddddddQ")
_SEQUENCE: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")
_COPY_BYTES: Final = 128  # the two copies lie on different cache lines
_PLACE_BYTES: Final = 2 * _COPY_BYTES
_NEVER_USED: Final = bytes(_PLACE_BYTES)

# A reader that meets two broken copies has been overtaken twice while it copied 256 bytes; the writers write
# twice a second. More than a few tries would be waiting, and a probe does not wait.
READ_TRIES: Final = 8


class Record(NamedTuple):
    """How one worker is. Times are monotonic seconds; 0.0 stands for never.

    slot: its place on the board; pid: 0 until it runs; generation: see :attr:`Board.generation`;
    state: ``booting`` | ``running`` | ``draining``; hub_alive: its hub's threads run; since: when it began;
    beat: when it last wrote this; canary: when the newest canary heartbeat was made; lag: the longest
    event-loop lag of the last ten seconds, s; tail_age: seconds, at ``beat``, since the log last answered;
    append_failed: when the log last refused an append, if it has taken none since; streams: open streams.
    """

    slot: int
    pid: int
    generation: int
    state: str
    hub_alive: bool = True
    since: float = 0.0
    beat: float = 0.0
    canary: float = 0.0
    lag: float = 0.0
    tail_age: float = 0.0
    append_failed: float = 0.0
    streams: int = 0


class Board:
    """See the module's text. ``Board.create(slots)`` makes one; forked processes share it by inheriting
    it."""

    def __init__(self, memory: mmap.mmap, slots: int) -> None:
        self._memory = memory
        self.slots = slots

    @classmethod
    def create(cls, slots: int) -> Self:
        """A new board with room for ``slots`` workers (256 bytes each)."""
        # One place for the header, one whose first byte is the `started` latch, then the slots.
        memory = mmap.mmap(-1, _PLACE_BYTES * (slots + 2))
        # Anonymous memory is not bounded by /dev/shm. Its pages are taken now, so that a write later needs none.
        memory[:] = bytes(len(memory))
        return cls(memory, slots)

    # ── the header: written by the master only ────────────────────────────────────────────────────────────

    @property
    def generation(self) -> int:
        """How often the configuration was reloaded (SIGHUP). Workers of an older generation are on their way
        out."""
        return self._header()[0]

    @property
    def expected(self) -> int:
        """How many workers there should be, so that one which is missing shows."""
        return self._header()[1]

    @property
    def folds(self) -> int:
        """Odd while the master moves a dead worker's counters; see :meth:`folding`."""
        return self._header()[2]

    def set_expected(self, workers: int) -> None:
        generation, _, folds = self._header()
        self._write_header(generation, workers, folds)

    def bump_generation(self) -> None:
        """A reload begins: whoever is forked from now on is of a new generation."""
        generation, expected, folds = self._header()
        self._write_header(generation + 1, expected, folds)

    @contextmanager
    def folding(self) -> Iterator[None]:
        """While the master moves counters from one file to another, a reader would count them twice or not at
        all."""
        generation, expected, folds = self._header()
        self._write_header(generation, expected, folds | 1)
        try:
            yield
        finally:
            self._write_header(generation, expected, (folds | 1) + 1)

    @property
    def started(self) -> bool:
        """A worker of this pod has started once (the latch of ``/startupz``)."""
        return self._memory[_PLACE_BYTES] == 1

    def mark_started(self) -> None:
        self._memory[_PLACE_BYTES] = 1  # one byte that only ever becomes 1: any worker may write it

    # ── slots ─────────────────────────────────────────────────────────────────────────────────────────────

    def reserve(self, taken: Collection[int]) -> int | None:
        """Give a slot to the worker that is forked next; None when all are taken.

        :param taken: the slots of the workers that the master still has. Any other is free, whatever it says:
        so the
            slot of a worker that vanished without a word is used again.
        """
        free = [slot for slot in range(self.slots) if slot not in taken]
        for slot in free:
            if self.read(slot) is not None:
                self.release(slot)
        if not free:
            return None
        now = time.monotonic()
        self.write(Record(free[0], 0, self.generation, BOOTING, since=now, beat=now))
        return free[0]

    def release(self, slot: int) -> None:
        """Take back the slot of a worker that has been reaped."""
        self._write(2 + slot, _SLOT, (0,) * 11)

    def write(self, record: Record) -> None:
        """Put a record into its slot."""
        slot, pid, generation, state, hub_alive, *numbers = record
        self._write(2 + slot, _SLOT, (generation, pid, _STATES.index(state), hub_alive, *numbers))

    def read(self, slot: int) -> Record | None:
        """What is in a slot; None when it is free."""
        found = self._read(2 + slot, _SLOT)
        if found is None or not found[2]:
            return None
        generation, pid, state, hub_alive, *numbers = found
        return Record(slot, pid, generation, _STATES[state], bool(hub_alive), *numbers)

    def records(self) -> list[Record]:
        """All workers that have a slot."""
        # Most slots have never been used: one look at the whole page tells which (0.1 µs a slot instead of 4).
        page = self._memory[2 * _PLACE_BYTES :]
        used = [
            slot for slot in range(self.slots) if page[slot * _PLACE_BYTES : (slot + 1) * _PLACE_BYTES] != _NEVER_USED
        ]
        return [record for record in map(self.read, used) if record is not None]

    # ── places ────────────────────────────────────────────────────────────────────────────────────────────

    def _header(self) -> tuple[int, int, int]:
        generation, expected, folds = self._read(0, _HEADER) or (1, 0, 0)
        return generation, expected, folds

    def _write_header(self, generation: int, expected: int, folds: int) -> None:
        self._write(0, _HEADER, (generation, expected, folds))

    def _copies(self, place: int) -> list[tuple[int, bytes]]:
        """The two copies of a place, each as (sequence, bytes); sequence 0: never written."""
        start = place * _PLACE_BYTES
        both = self._memory[start : start + _PLACE_BYTES]  # one memcpy: as near to one moment as can be
        halves = (both[:_COPY_BYTES], both[_COPY_BYTES:])
        return [(_SEQUENCE.unpack_from(half)[0], half) for half in halves]

    def _read(self, place: int, layout: struct.Struct) -> tuple[int, ...] | None:
        for _ in range(READ_TRIES):
            newer_first = sorted(self._copies(place), reverse=True)
            if newer_first[0][0] == 0:
                return None
            for sequence, copy in newer_first:
                if sequence and _is_whole(copy, layout):
                    return layout.unpack_from(copy)[1:]
        return None

    def _write(self, place: int, layout: struct.Struct, values: tuple[float, ...]) -> None:
        # A copy that is torn counts as older than any: the other one must not be touched.
        sequences = [sequence if _is_whole(copy, layout) else 0 for sequence, copy in self._copies(place)]
        older = sequences.index(min(sequences))
        packed = layout.pack(max(sequences) + 1, *values)
        start = place * _PLACE_BYTES + older * _COPY_BYTES
        copy = packed + _CRC.pack(zlib.crc32(packed))
        self._memory[start : start + len(copy)] = copy  # one memcpy; struct.pack_into writes zeros first


def _is_whole(copy: bytes, layout: struct.Struct) -> bool:
    (checksum,) = _CRC.unpack_from(copy, layout.size)
    return bool(checksum == zlib.crc32(copy[: layout.size]))


class Seat(NamedTuple):
    """A worker's place: the board, and its slot on it (None when the board is full)."""

    board: Board
    slot: int | None


class _Process:
    """What this process has of the board. It lives in a module because gunicorn executes its configuration
    file anew on SIGHUP, while modules stay: a board made there would be a second one, that no old worker
    writes on."""

    board: Board | None = None
    listening: tuple[Name, ...] = ()  # gunicorn's listeners, in the order of its `bind`
    worker: tuple[int, int | None] | None = None  # (pid, slot), set in the worker after the fork
    # The extensions in this process: the server's callable may be middleware around their apps.
    extensions: Final[list[weakref.ref[Health]]] = []


process: Final = _Process()


def shared() -> Board | None:
    """The pod's board, if a master has made one in this process or before it was forked."""
    return process.board


def in_worker() -> bool:
    """Is this process a worker that was forked with a seat at the board?"""
    return process.worker is not None and process.worker[0] == os.getpid()


def listening() -> tuple[Name, ...]:
    """The listeners of the server that forked this worker; empty in any other process."""
    return process.listening if in_worker() else ()


def extensions() -> list[Health]:
    """All of this process, in the order in which they came."""
    return [extension for known in process.extensions if (extension := known()) is not None]


def take_seat() -> Seat:
    """This worker's seat; without a master that made a board, a board of its own with one slot: a process
    that nobody watches speaks for itself alone."""
    if process.board is not None and process.worker is not None and in_worker():
        return Seat(process.board, process.worker[1])
    board = Board.create(1)
    board.set_expected(1)
    return Seat(board, board.reserve(()))
