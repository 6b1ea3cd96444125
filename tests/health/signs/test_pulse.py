"""What runs in the background: each duty in a thread of its own, and none ends for good."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import pytest

from health import Health
from health.checks.table import Limits, ask
from health.checks.user import UserChecks
from health.signs import pulse as module
from health.signs.pulse import Vitals
from health.threads import Aside
from tests.health.fakes import FakeSource, heartbeat
from tests.support.wait import eventually

ROOT = Path(__file__).parents[3]

Make = Callable[..., Vitals]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """``make(source, flush)`` makes a worker's signs, which are stopped with the test."""
    monkeypatch.setattr(module, "RESTART", 0.05)
    made: list[Vitals] = []

    def vitals(source: Any = None, flush: Callable[[], None] = lambda: None) -> Vitals:
        made.append(Vitals(lambda: source, Limits, UserChecks(), {"flush": (0.05, flush)}))
        return made[-1]

    yield vitals
    for one in made:
        one.stop()


def beat_of(vitals: Vitals) -> float:
    return vitals.seat.board.records()[0].beat


def test_a_flush_that_waits_for_a_disk_holds_up_neither_the_beat_nor_the_canary(make: Make) -> None:
    stalled, go_on = threading.Event(), threading.Event()

    def flush() -> None:
        stalled.set()
        go_on.wait(20)

    source = FakeSource()
    vitals = make(source, flush)
    try:
        vitals.start()
        assert stalled.wait(5)
        before = beat_of(vitals)
        eventually(lambda: beat_of(vitals) > before, 3)
        eventually(lambda: source.attached)
        source.send(heartbeat())
        eventually(lambda: vitals.canary.seen > 0, 3)
        eventually(lambda: vitals.seat.board.records()[0].canary > 0, 3)
    finally:
        go_on.set()
        source.close()


@pytest.mark.parametrize("duty", ["lag", "canary", "pulse", "flush"])
def test_a_duty_that_raises_is_begun_again_and_said_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, duty: str
) -> None:
    vitals = make()
    begun = []

    def broken(*_: object) -> None:
        begun.append(time.monotonic())
        if len(begun) < 4:
            raise ValueError("a bug")
        vitals._stop.wait()

    place, name = {
        "lag": (vitals.lag, "run"),
        "canary": (vitals.canary, "run"),
        "pulse": (vitals, "_pulse"),
        "flush": (vitals, "_every"),
    }[duty]
    monkeypatch.setattr(place, name, broken)
    vitals.start()
    eventually(lambda: len(begun) == 4, 5)
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in said] == [f"health: {duty} failed"]


def test_a_flush_that_fails_is_said_once_until_it_has_worked_again(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[bool] = []

    def flush() -> None:
        outcomes.append(len(outcomes) in (3, 4))
        if not outcomes[-1]:
            raise OSError("no")

    make(None, flush).start()
    eventually(lambda: len(outcomes) >= 9, 5)
    said = [record for record in caplog.records if record.getMessage() == "health: flush failed"]
    assert len(said) == 2


def test_a_service_whose_status_raises_is_reported_as_dead_and_not_forgotten(make: Make) -> None:
    class Broken(FakeSource):
        def status(self) -> Any:
            raise ValueError("no status")

    seen = make(Broken()).snapshot()
    assert [worker.hub_alive for worker in seen.workers] == [False]
    assert seen.log_ready is False


def test_without_gevent_work_aside_is_done_at_once_and_raises_what_it_raises() -> None:
    done = []
    Aside().run(lambda: done.append(1), 0.01)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        Aside().run(lambda: [][1 // 0], 0.01)


GEVENT = """
from gevent import monkey
monkey.patch_all()
import time
import gevent
from health.threads import Aside

blocking = monkey.get_original("time", "sleep")
turns = []

def turn():
    while True:
        turns.append(time.monotonic())
        gevent.sleep(0.01)

gevent.spawn(turn)
aside = Aside()
began = time.monotonic()
for _ in range(2):  # the second finds the thread busy
    try:
        aside.run(lambda: blocking(4.0), 0.3)
    except TimeoutError as error:
        assert "0.3" in str(error)
    else:
        raise AssertionError("it was waited for")
assert 0.5 < time.monotonic() - began < 3.5
assert max(b - a for a, b in zip(turns, turns[1:])) < 3, "the loop was held up"
done = []
aside.run(lambda: done.append(1), 10.0)
assert done
try:
    aside.run(lambda: 1 / 0, 1.0)
except ZeroDivisionError:
    print("raised")
"""


def test_under_gevent_work_aside_holds_up_nobody_and_is_waited_for_only_so_long() -> None:
    done = subprocess.run([sys.executable, "-c", GEVENT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "raised\n"), done


def test_a_pulse_that_has_died_shows_also_when_its_own_worker_answers(make: Make) -> None:
    """Only what was written counts as a beat: the answering worker's own clock would make it look fresh."""
    vitals = make(FakeSource())
    vitals._beat()
    board, slot = vitals.seat
    assert slot is not None
    record = board.read(slot)
    assert record is not None
    board.write(record._replace(beat=record.beat - 60))
    (seen,) = vitals.snapshot().workers
    assert seen.beat == record.beat - 60
    assert "has not beaten for 60" in (ask("ready", vitals.table(), vitals.snapshot()).text())


class Measured(FakeSource):
    usage: Any = None

    def log_usage(self) -> Any:
        if isinstance(self.usage, Exception):
            raise self.usage
        return self.usage


def test_what_the_log_takes_stays_as_it_was_last_while_it_cannot_say() -> None:
    source = Measured()
    app = flask.Flask("vitals")
    app.extensions["sse"] = source
    health = Health(app)
    assert (health._values() or {})["log_bytes"] is None
    health._measure_log()
    assert (health._values() or {})["log_bytes"] is None, "a log that is not open yet"
    source.usage = SimpleNamespace(bytes=5, free=None, oldest_at=None)
    health._measure_log()
    found = health._values() or {}
    assert (found["log_bytes"], found["log_oldest"], found["log_free"]) == (5, 0.0, None)
    source.usage = None
    health._measure_log()
    assert (health._values() or {})["log_bytes"] == 5
    source.usage = SimpleNamespace(bytes=6, free=7, oldest_at=8.5)
    health._measure_log()
    found = health._values() or {}
    assert (found["log_bytes"], found["log_free"], found["log_oldest"]) == (6, 7, 8.5)
    del app.extensions["sse"]
    health._measure_log()  # nothing to ask
    source.close()
