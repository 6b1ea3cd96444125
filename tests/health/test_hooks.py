"""What gunicorn's hooks write on the board."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from health import Health, board, extension, hooks, metrics_files
from health.board import BOOTING, DRAINING, RUNNING, Board, Record
from health.checks import Limits
from health.metrics import pod_counts
from health.user_checks import UserChecks
from health.vitals import Vitals
from tests.health.fakes import FakeSource
from tests.support.wait import eventually


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


def test_health_begins_with_its_worker_and_counts_to_its_end_whatever_stands_around_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board.process, "extensions", [])
    monkeypatch.setattr(metrics_files._process, "directory", tmp_path)
    monkeypatch.setattr(extension, "FLUSH_INTERVAL", 600.0)
    app = flask.Flask("hooks")
    source = app.extensions["sse"] = FakeSource()
    Health(app)
    worker: Any = SimpleNamespace(wsgi=ProxyFix(app.wsgi_app))
    hooks.post_worker_init(worker)

    def opened() -> float | None:
        return pod_counts(tmp_path).get("sse_streams_opened_total")

    eventually(lambda: opened() == source.stats.opened)
    source.stats.opened += 70
    hooks.worker_exit(None, worker)
    assert opened() == source.stats.opened, "what was counted last is kept"
    source.close()


def test_a_flush_that_is_given_up_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = flask.Flask("hooks")
    app.extensions["sse"] = FakeSource()
    health = Health(app)

    class Disk:
        stalled = True

        def run(self, work: Any, patience: float) -> None:
            if self.stalled:
                raise TimeoutError

    disk = Disk()
    monkeypatch.setattr(health, "_aside", disk)
    monkeypatch.setattr(health, "_exporter", object())
    for stalled in (True, True, False, False, True, True):
        disk.stalled = stalled
        health._flush()
    assert caplog.text.count("metrics are old") == 2
