"""What gunicorn's hooks write on the board."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from health import board, hooks, metrics_files
from health.board import BOOTING, DRAINING, RUNNING, Board, Record
from health.checks import Limits
from health.user_checks import UserChecks
from health.vitals import Vitals


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board for four workers, two of which are expected; this process is the worker in slot 0."""
    made = Board.create(4)
    made.set_expected(2)
    monkeypatch.setattr(board.process, "board", made)
    monkeypatch.setattr(board.process, "worker", (os.getpid(), 0))
    monkeypatch.setattr(metrics_files._process, "directory", None)
    yield made


def put(shared: Board, slot: int, generation: int, state: str = RUNNING) -> None:
    shared.write(Record(slot, 100 + slot, generation, state))


def test_a_worker_is_replaced_when_all_of_the_next_generation_run(shared: Board) -> None:
    put(shared, 0, 1)
    assert not hooks.replaced(), "no reload has begun"
    put(shared, 1, 1)
    shared.bump_generation()
    assert not hooks.replaced(), "nobody has come yet; those of its own generation do not count"
    put(shared, 2, 2)
    put(shared, 3, 2, BOOTING)
    assert not hooks.replaced(), "the second has no app yet"
    put(shared, 3, 2, DRAINING)
    assert not hooks.replaced()
    put(shared, 3, 2)
    assert hooks.replaced()
    put(shared, 0, 2)
    assert not hooks.replaced(), "one of the new generation stays"


def test_a_worker_without_a_place_on_the_board_is_never_replaced(
    shared: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board.process, "worker", (os.getpid(), None))
    shared.bump_generation()
    put(shared, 1, 2)
    put(shared, 2, 2)
    assert not hooks.replaced()
    monkeypatch.setattr(board.process, "board", None)
    assert not hooks.replaced()


def test_the_slot_of_a_worker_that_has_ended_is_free_at_once(shared: Board) -> None:
    """With TTOU nobody is forked who would clear it, and a worker that does not beat makes the pod unready."""
    server: Any = SimpleNamespace(WORKERS={})
    worker: Any = SimpleNamespace(pid=101)
    hooks.pre_fork(server, worker)
    server.WORKERS[101] = worker
    assert shared.read(worker.health_slot) is not None
    hooks.child_exit(server, worker)
    assert shared.read(worker.health_slot) is None


def test_a_worker_that_starts_while_a_reload_begins_is_of_the_generation_it_was_forked_in(shared: Board) -> None:
    put(shared, 0, 1, BOOTING)
    shared.bump_generation()
    vitals = Vitals(lambda: None, Limits, UserChecks(), {})
    vitals._beat()
    found = shared.read(0)
    assert found is not None and (found.generation, shared.generation) == (1, 2)
    assert vitals.snapshot().running() == [], "it is on its way out"
