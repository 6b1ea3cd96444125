"""The board: shared memory where each worker of a pod writes its state, so that any worker can answer a probe for all.

The gunicorn master creates it before the first fork (anonymous shared memory, which goes with the last process). It
reserves a slot for each worker that it forks, and releases the slot when it has reaped the worker. So each place has
one writer at a time: the master writes the header and the slots of workers that have not started or have ended, and a
worker writes its own slot.

Readers take no lock. A place holds two copies of its record, each with a sequence number and a checksum. The writer
overwrites the older copy; a reader uses the newer one that is whole. If a writer is stopped or killed during a write,
the other copy is still whole. (A seqlock has one copy, and a writer that dies with an odd number blocks its readers.)
Only the checksum proves that a copy is whole, because processors other than x86 may reorder the stores.

Times are seconds of CLOCK_MONOTONIC, which ``time.monotonic`` reads on Linux. All processes of a machine share that
clock, so they can compare their times, and a step of the wall clock cannot make a dead worker look alive.
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
from typing import Final, NamedTuple, Protocol, Self

from ..listeners import Name

# Seconds between two writes of a worker's slot, and the age of a slot from which on the worker counts as dead, stopped
# or stuck. A busy worker may miss four beats; a dead one is noticed within three seconds.
BEAT_INTERVAL: Final = 0.5
BEAT_MAX_AGE: Final = 2.5

BOOTING: Final = "booting"
RUNNING: Final = "running"
DRAINING: Final = "draining"
_STATES: Final = ("", BOOTING, RUNNING, DRAINING)

# A sequence number, then the fields, then the CRC-32 of all these.
_HEADER: Final = struct.Struct("<QQQQ")  # sequence, generation, expected, folds
_SLOT: Final = struct.Struct("<QQIBBxxddddddQQ")
_SEQUENCE: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")
_COPY_BYTES: Final = 128  # the two copies lie on different cache lines
_PLACE_BYTES: Final = 2 * _COPY_BYTES
_NEVER_USED: Final = bytes(_PLACE_BYTES)

# Both copies are broken only if the writer, which writes twice a second, overtook the reader twice within one copy of
# 256 bytes. A probe must not wait, so the tries are few.
READ_TRIES: Final = 8


class Record(NamedTuple):
    """The state of one worker. Times are monotonic seconds; 0.0: never.

    slot: its place on the board; pid: 0 until it runs; generation: see ``Board.generation``;
    state: ``booting`` | ``running`` | ``draining``; hub_alive: its hub's threads run; since: when it began;
    beat: when it last wrote this; canary: when the newest canary heartbeat was made; lag: the longest
    event-loop lag of the last ten seconds, s; tail_age: seconds, at ``beat``, since the log last answered;
    append_failed: when the log last refused an append, if it has taken none since; streams: open streams;
    runs: work in progress that a draining worker waits for.
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
    runs: int = 0


class Board:
    """See the module's docstring. ``Board.create(slots)`` creates one; forked processes share it."""

    def __init__(self, memory: mmap.mmap, slots: int) -> None:
        self._memory = memory
        self.slots = slots

    @classmethod
    def create(cls, slots: int) -> Self:
        """Create a board for ``slots`` workers (256 bytes each)."""
        # One place for the header, one whose first byte is the `started` latch, then the slots.
        memory = mmap.mmap(-1, _PLACE_BYTES * (slots + 2))
        # Anonymous memory is not limited by /dev/shm. Allocate all pages now, so that later writes need none.
        memory[:] = bytes(len(memory))
        return cls(memory, slots)

    # ── the header: written by the master only ────────────────────────────────────────────────────────────

    @property
    def generation(self) -> int:
        """Grows with each reload (SIGHUP). Workers of an older generation are about to end."""
        return self._header()[0]

    @property
    def expected(self) -> int:
        """The number of workers that gunicorn is told to keep."""
        return self._header()[1]

    @property
    def folds(self) -> int:
        """Odd while the master moves counters between files (``folding``)."""
        return self._header()[2]

    def set_expected(self, workers: int) -> None:
        generation, _, folds = self._header()
        self._write_header(generation, workers, folds)

    def bump_generation(self) -> None:
        """Begin a reload: workers forked from now on belong to a new generation."""
        generation, expected, folds = self._header()
        self._write_header(generation + 1, expected, folds)

    @contextmanager
    def folding(self) -> Iterator[None]:
        """Mark the time while the master moves counters between files: a reader would miss them or count them twice."""
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
        self._memory[_PLACE_BYTES] = 1  # any worker may write it, because it is one byte and only ever set to 1

    # ── slots ─────────────────────────────────────────────────────────────────────────────────────────────

    def reserve(self, taken: Collection[int]) -> int | None:
        """Reserve a slot for the next worker; None if all are taken.

        taken: the slots of the workers that the master still has. All others are free, whatever they hold, so that the
            slot of a worker that vanished can be used again.
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
        """Free the slot of a worker that has been reaped."""
        self._write(2 + slot, _SLOT, (0,) * 12)

    def write(self, record: Record) -> None:
        """Write a record to its slot."""
        slot, pid, generation, state, hub_alive, *numbers = record
        self._write(2 + slot, _SLOT, (generation, pid, _STATES.index(state), hub_alive, *numbers))

    def read(self, slot: int) -> Record | None:
        """Return the record in a slot; None if it is free."""
        found = self._read(2 + slot, _SLOT)
        if found is None or not found[2]:
            return None
        generation, pid, state, hub_alive, *numbers = found
        return Record(slot, pid, generation, _STATES[state], bool(hub_alive), *numbers)

    def records(self) -> list[Record]:
        """Return the records of all workers that have a slot."""
        # Skip slots that have never been used, by comparing them with zeros (0.1 µs a slot instead of 4).
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
        """Return both copies of a place as (sequence, bytes). A sequence of 0 means never written."""
        start = place * _PLACE_BYTES
        both = self._memory[start : start + _PLACE_BYTES]  # one memcpy, to read both at nearly the same moment
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
        # A broken copy counts as the older one, so that the whole one stays.
        sequences = [sequence if _is_whole(copy, layout) else 0 for sequence, copy in self._copies(place)]
        older = sequences.index(min(sequences))
        packed = layout.pack(max(sequences) + 1, *values)
        start = place * _PLACE_BYTES + older * _COPY_BYTES
        copy = packed + _CRC.pack(zlib.crc32(packed))
        self._memory[start : start + len(copy)] = copy  # one memcpy; struct.pack_into would write zeros first


def _is_whole(copy: bytes, layout: struct.Struct) -> bool:
    (checksum,) = _CRC.unpack_from(copy, layout.size)
    return bool(checksum == zlib.crc32(copy[: layout.size]))


class Seat(NamedTuple):
    """A worker's place: the board, and its slot there (None if the board is full)."""

    board: Board
    slot: int | None


class Extension(Protocol):
    """What the hooks call: start and stop the background work of this process."""

    def start(self) -> object: ...
    def stop(self) -> None: ...


class _Process:
    """This process's state: the board, its worker and its extensions.

    It is not in gunicorn's configuration file, because gunicorn runs that again on SIGHUP: the old workers would be
    missing from a second board.
    """

    board: Board | None = None
    listening: tuple[Name, ...] = ()  # gunicorn's listeners, in the order of its `bind`
    port: int | None = None  # the health listener's, as the server's configuration says; see `Config.health_port`
    worker: tuple[int, int | None] | None = None  # (pid, slot), set in the worker after the fork
    # Registered here, because the server's callable may be middleware, from which they could not be found.
    extensions: Final[list[weakref.ref[Extension]]] = []


process: Final = _Process()


def shared() -> Board | None:
    """Return the pod's board, if the gunicorn master created one."""
    return process.board


def in_worker() -> bool:
    """Tell whether this process is a worker that the gunicorn master forked."""
    return process.worker is not None and process.worker[0] == os.getpid()


def listening() -> tuple[Name, ...]:
    """Return the listeners of this worker's server; empty in any other process."""
    return process.listening if in_worker() else ()


def extensions() -> list[Extension]:
    """Return this process's extensions, in the order of their ``init_app``."""
    return [extension for known in process.extensions if (extension := known()) is not None]


def take_seat() -> Seat:
    """Return this worker's seat; without a gunicorn master, the only seat of a new board."""
    if process.board is not None and process.worker is not None and in_worker():
        return Seat(process.board, process.worker[1])
    board = Board.create(1)
    board.set_expected(1)
    return Seat(board, board.reserve(()))
