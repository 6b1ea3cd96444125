"""Background work: each duty has its own thread, and starts again after an exception."""

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
from health.signs.pulse import Pulse
from health.threads import RealThread
from tests.health.fakes import FakeSource, heartbeat
from tests.support.wait import eventually

ROOT = Path(__file__).parents[3]

Make = Callable[..., Pulse]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """``make(source, flush)`` creates a pulse, which is stopped at the end of the test."""
    monkeypatch.setattr(module, "RESTART", 0.05)
    made: list[Pulse] = []

    def pulse(source: Any = None, flush: Callable[[], None] = lambda: None) -> Pulse:
        made.append(Pulse(lambda: source, Limits, UserChecks(), {"flush": (0.05, flush)}))
        return made[-1]

    yield pulse
    for one in made:
        one.stop()


def beat_of(pulse: Pulse) -> float:
    return pulse.seat.board.records()[0].beat


def test_a_flush_that_waits_for_a_disk_delays_neither_the_beat_nor_the_canary(make: Make) -> None:
    stalled, go_on = threading.Event(), threading.Event()

    def flush() -> None:
        stalled.set()
        go_on.wait(20)

    source = FakeSource()
    pulse = make(source, flush)
    try:
        pulse.start()
        assert stalled.wait(5)
        before = beat_of(pulse)
        eventually(lambda: beat_of(pulse) > before, 3)
        eventually(lambda: source.attached)
        source.send(heartbeat())
        eventually(lambda: pulse.canary.seen > 0, 3)
        eventually(lambda: pulse.seat.board.records()[0].canary > 0, 3)
    finally:
        go_on.set()
        source.close()


@pytest.mark.parametrize("duty", ["lag", "canary", "pulse", "flush"])
def test_a_duty_that_raises_starts_again_and_is_logged_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, duty: str
) -> None:
    pulse = make()
    begun = []

    def broken(*_: object) -> None:
        begun.append(time.monotonic())
        if len(begun) < 4:
            raise ValueError("a bug")
        pulse._stop.wait()

    place, name = {
        "lag": (pulse.lag, "run"),
        "canary": (pulse.canary, "run"),
        "pulse": (pulse, "_pulse"),
        "flush": (pulse, "_every"),
    }[duty]
    monkeypatch.setattr(place, name, broken)
    pulse.start()
    eventually(lambda: len(begun) == 4, 5)
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in said] == [f"health: {duty} failed"]


def test_a_flush_that_fails_is_logged_once_until_it_has_worked_again(
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


def test_a_service_whose_status_raises_is_reported_as_dead(make: Make) -> None:
    class Broken(FakeSource):
        def status(self) -> Any:
            raise ValueError("no status")

    seen = make(Broken()).snapshot()
    assert [worker.hub_alive for worker in seen.workers] == [False]
    assert seen.log_ready is False


def test_without_gevent_work_runs_in_the_callers_thread() -> None:
    done = []
    RealThread().run(lambda: done.append(1), 0.01)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        RealThread().run(lambda: [][1 // 0], 0.01)


GEVENT = """
from gevent import monkey
monkey.patch_all()
import time
import gevent
from health.threads import RealThread

blocking = monkey.get_original("time", "sleep")
turns = []

def turn():
    while True:
        turns.append(time.monotonic())
        gevent.sleep(0.01)

gevent.spawn(turn)
real_thread = RealThread()
began = time.monotonic()
for _ in range(2):  # the second finds the thread busy
    try:
        real_thread.run(lambda: blocking(4.0), 0.3)
    except TimeoutError as error:
        assert "0.3" in str(error)
    else:
        raise AssertionError("no time-out")
assert 0.5 < time.monotonic() - began < 3.5
assert max(b - a for a, b in zip(turns, turns[1:])) < 3, "the loop was held up"
done = []
real_thread.run(lambda: done.append(1), 10.0)
assert done
try:
    real_thread.run(lambda: 1 / 0, 1.0)
except ZeroDivisionError:
    print("raised")
"""


def test_under_gevent_work_does_not_block_the_loop_and_the_caller_waits_only_so_long() -> None:
    done = subprocess.run([sys.executable, "-c", GEVENT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "raised\n"), done


def test_a_worker_without_a_pulse_reports_itself_as_silent(make: Make) -> None:
    """The beat is as it was written, and not the time of the answer."""
    pulse = make(FakeSource())
    pulse._beat()
    board, slot = pulse.seat
    assert slot is not None
    record = board.read(slot)
    assert record is not None
    board.write(record._replace(beat=record.beat - 60))
    (seen,) = pulse.snapshot().workers
    assert seen.beat == record.beat - 60
    assert "has not beaten for 60" in (ask("ready", pulse.table(), pulse.snapshot()).text())


class Measured(FakeSource):
    usage: Any = None

    def log_usage(self) -> Any:
        if isinstance(self.usage, Exception):
            raise self.usage
        return self.usage


def test_the_last_size_of_the_log_stays_while_the_log_cannot_tell() -> None:
    source = Measured()
    app = flask.Flask("pulse")
    app.extensions["sse"] = source
    health = Health(app).current
    assert (health._values() or {})["log_bytes"] is None
    health._measure_log()
    assert (health._values() or {})["log_bytes"] is None, "the log is not open yet"
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
