from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import pytest

from health.signs import board
from health.signs.board import BOOTING, RUNNING, Board, Record


def record(slot: int = 0, **values: Any) -> Record:
    return Record(slot, 100 + slot, 1, RUNNING)._replace(**values)


def test_a_record_is_read_as_it_was_written() -> None:
    shared = Board.create(3)
    written = Record(1, 4711, 2, "draining", False, 1.5, 2.5, 3.5, 0.25, 9.75, 8.5, 10_000, 12)
    shared.write(written)
    assert shared.read(1) == written
    assert shared.records() == [written]


def test_a_new_board_is_empty_and_of_the_first_generation() -> None:
    shared = Board.create(2)
    assert (shared.records(), shared.generation, shared.expected, shared.started) == ([], 1, 0, False)


def test_header_fields_are_independent() -> None:
    shared = Board.create(1)
    shared.set_expected(4)
    shared.bump_generation()
    shared.mark_started()
    with shared.folding():
        assert shared.folds % 2 == 1
    assert (shared.expected, shared.generation, shared.started, shared.folds) == (4, 2, True, 2)


@pytest.mark.parametrize("torn", range(0, 84, 5))
def test_a_writer_that_dies_during_a_write_leaves_the_record_before(torn: int) -> None:
    shared = Board.create(1)
    for beat in (1.0, 2.0, 3.0):
        shared.write(record(beat=beat))
    place = 2 * board._PLACE_BYTES
    memory = shared._memory
    copies = [memory[place : place + 128], memory[place + 128 : place + 256]]
    newest = max((0, 1), key=lambda half: copies[half][:8])
    before = bytes(copies[newest])
    # What a memcpy leaves that was stopped after `torn` bytes of the next record.
    shared.write(record(beat=4.0, streams=9))
    shared.write(record(beat=5.0, streams=99, pid=1, canary=7.0, lag=7.0, tail_age=7.0))
    at = place + newest * 128
    whole = bytes(memory[at : at + 128])
    memory[at : at + 128] = whole[:torn] + before[torn:]
    found = shared.read(0)
    assert found is not None
    assert found in (record(beat=3.0), record(beat=4.0, streams=9))
    shared.write(record(beat=6.0))
    assert shared.read(0) == record(beat=6.0), "the next write replaces the torn copy"


def test_a_torn_copy_is_overwritten_before_the_whole_one() -> None:
    shared = Board.create(1)
    place = 2 * board._PLACE_BYTES

    def tear_newest() -> None:
        halves = (place, place + 128)
        at = max(halves, key=lambda start: shared._memory[start : start + 8])
        shared._memory[at + 40] ^= 0xFF

    shared.write(record(beat=1.0))
    shared.write(record(beat=2.0))
    for _ in range(3):  # the writer dies again and again, always during its first write
        tear_newest()
        assert shared.read(0) == record(beat=1.0)
        shared.write(record(beat=3.0))
        assert shared.read(0) == record(beat=3.0)


def test_a_process_that_a_worker_forks_does_not_count_as_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Board.create(2)
    monkeypatch.setattr(board.process, "board", shared)
    monkeypatch.setattr(board.process, "listening", (("127.0.0.1", 8080),))
    monkeypatch.setattr(board.process, "worker", (os.getpid(), 1))
    assert board.in_worker() and board.listening() and board.take_seat() == (shared, 1)
    monkeypatch.setattr(board.process, "worker", (os.getpid() + 1, 1))
    assert not board.in_worker() and board.listening() == ()
    assert board.take_seat().board is not shared


def test_a_slot_without_a_whole_copy_reads_as_free() -> None:
    shared = Board.create(1)
    place = 2 * board._PLACE_BYTES
    shared._memory[place : place + 256] = b"\x01" * 256
    assert shared.read(0) is None


def _hammer(shared: Board, slot: int, stop: float) -> None:
    value = 0.0
    while time.monotonic() < stop:
        value += 1.0
        shared.write(record(slot, beat=value, canary=value, lag=value, tail_age=value, streams=int(value), since=value))


def test_readers_see_whole_records_while_processes_write_at_full_speed() -> None:
    shared = Board.create(2)
    fork = multiprocessing.get_context("fork")
    stop = time.monotonic() + 0.8
    for slot in (0, 1):
        shared.write(record(slot, beat=0.5, canary=0.5, lag=0.5, tail_age=0.5, since=0.5))
    writers = [fork.Process(target=_hammer, args=(shared, slot, stop)) for slot in (0, 1)]
    for writer in writers:
        writer.start()
    last = [0.0, 0.0]
    reads = 0
    while time.monotonic() < stop:
        for found in shared.records():
            assert found.beat == found.canary == found.lag == found.tail_age == found.since
            assert found.beat >= last[found.slot], "time went backwards"
            last[found.slot] = found.beat
        reads += 1
    for writer in writers:
        writer.join(5)
        assert writer.exitcode == 0
    assert reads > 100
    assert min(last) > 100


def test_a_stopped_writer_blocks_no_reader() -> None:
    shared = Board.create(1)
    shared.write(record(beat=0.5))
    writer = multiprocessing.get_context("fork").Process(target=_hammer, args=(shared, 0, time.monotonic() + 20))
    writer.start()
    assert writer.pid is not None
    try:
        for _ in range(40):  # it is also stopped in the middle of a write
            time.sleep(0.002)
            os.kill(writer.pid, signal.SIGSTOP)
            began = time.monotonic()
            assert shared.read(0) is not None
            assert time.monotonic() - began < 0.1
            os.kill(writer.pid, signal.SIGCONT)
    finally:
        writer.kill()
        writer.join(5)


def test_each_worker_gets_its_own_slot_and_released_ones_are_used_again() -> None:
    shared = Board.create(2)
    assert [shared.reserve(()), shared.reserve({0}), shared.reserve({0, 1})] == [0, 1, None]
    shared.release(0)
    assert [found.slot for found in shared.records()] == [1]
    assert shared.reserve({1}) == 0


def test_the_slot_of_a_worker_that_vanished_is_cleared_at_the_next_fork() -> None:
    shared = Board.create(4)
    for slot in range(3):
        shared.reserve(range(slot))
        shared.write(record(slot, beat=1.0))
    assert shared.reserve({0}) == 1, "gunicorn called no hook for workers 1 and 2"
    assert [(found.slot, found.state) for found in shared.records()] == [(0, RUNNING), (1, BOOTING)]


def test_a_reserved_slot_belongs_to_the_generation_at_the_fork() -> None:
    shared = Board.create(2)
    shared.reserve(())
    shared.bump_generation()
    shared.reserve({0})
    assert [found.generation for found in shared.records()] == [1, 2]


def test_a_process_without_a_master_has_a_board_of_its_own() -> None:
    seat = board.take_seat()
    assert (seat.slot, seat.board.expected) == (0, 1)
    assert not board.in_worker()
