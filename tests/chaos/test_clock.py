"""Redis's clock (which gives the ids) and an instance's clock are stepped: order and ids do not change."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import SETTINGS, Fleet
from tests.chaos.reader import Reader, reckon
from tests.chaos.recorder import Recorder
from tests.support.programs import require_program
from tests.support.redis_server import RedisServer
from tests.support.server import Server
from tests.support.wait import eventually

SOURCE = Path(__file__).with_name("stepped_clock.c")


class Clock:
    """A process started with this environment has a wall clock that can be stepped while it runs."""

    def __init__(self, directory: Path) -> None:
        compiler = require_program("cc", "gcc libc6-dev")
        library = directory / "stepped_clock.so"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE], check=True, timeout=60)
        self._file = directory / "step"
        self.step(0)
        self.env = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file)}

    def step(self, seconds: int) -> None:
        """Set the clock this many seconds off the right time."""
        with self._file.open("r+b" if self._file.exists() else "wb") as page:
            page.write(struct.pack("=q", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


STEPS = (-3600, 3600, 0)  # seconds: an hour back, two hours forward, right again


def redis_clock(fleet: Fleet) -> float:
    return float(fleet.redis.run("TIME")[0])


def wait_for_step(fleet: Fleet, off: int) -> None:
    eventually(lambda: abs(redis_clock(fleet) - time.time() - off) < 60, 5, "the clock is not stepped")


def test_the_clock_of_redis_is_stepped_back_and_forward(
    clock: Clock, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = RedisServer(appendfsync="always")
    with monkeypatch.context() as patch:
        for name, value in clock.env.items():
            patch.setenv(name, value)
        stack.enter_context(redis)
    fleet = stack.enter_context(Fleet(2, redis=redis))
    readers = fleet.readers(stack)
    with fleet.recorder() as recorder:
        for step in STEPS:
            recorder.progress()
            clock.step(step)
            wait_for_step(fleet, step)
            recorder.progress()
            # Clients that return now have cursors from an hour ago, or from an hour ahead.
            os.kill(fleet.servers[0].worker_pids()[0], signal.SIGKILL)
            recorder.progress()
    reckon(f"Redis's clock off by {STEPS} s", readers, recorder.finish())
    assert sum(reader.reconnects for reader in readers) > 0


def step_server(server: Server, clock: Clock, recorders: Sequence[Recorder]) -> None:
    """Step the clock and kill a worker after each step, so that its clients return with cursors of another time."""
    with Reader(server.port, ["quiet"]) as witness:  # a stream with events gets no heartbeats

        def stepped(seconds: int) -> bool:
            beats = [int(block.data or 0) for _, block in witness.diary if block.is_heartbeat]
            return bool(beats) and abs(beats[-1] / 1000 - time.time() - seconds) < 60

        for step in STEPS:
            clock.step(step)
            eventually(partial(stepped, step), 8, "the clock is not stepped")
            for recorder in recorders:
                recorder.progress(5)
            os.kill(server.worker_pids()[0], signal.SIGKILL)
            for recorder in recorders:
                recorder.progress(5)


@pytest.mark.slow
def test_the_clock_of_an_instance_is_stepped_back_and_forward(clock: Clock, stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(1))
    odd = Server(startup_timeout=40.0, **{**fleet.env, "SSE_LOG": fleet.url(0), **clock.env})
    stack.callback(odd.close)
    odd.start()
    readers = [*fleet.readers(stack, 3, [odd.port]), *fleet.readers(stack, 3)]
    with fleet.recorder() as recorder, fleet.recorder(odd.port, rate=20) as odd_recorder:
        step_server(odd, clock, [recorder, odd_recorder])
    acknowledged = sorted([*recorder.finish(), *odd_recorder.finish()], key=lambda one: one.position)
    reckon(f"one instance's clock off by {STEPS} s", readers, acknowledged)
    assert sum(reader.reconnects for reader in readers) > 0


def test_the_clock_is_stepped_back_and_forward_under_a_log_in_a_file(clock: Clock, stack: ExitStack) -> None:
    settings: dict[str, Any] = {**SETTINGS, **clock.env, "SSE_PUBLISH_KEY": None}
    server = stack.enter_context(Server(WEB_CONCURRENCY=2, **settings))
    readers = [stack.enter_context(Reader(server.port, ["a"])) for _ in range(4)]
    for reader in readers:
        reader.wait_connected()
    with Recorder(server.port, channels=("a",)) as recorder:
        step_server(server, clock, [recorder])
    reckon(f"the clock off by {STEPS} s, SQLite", readers, recorder.finish())
    assert sum(reader.reconnects for reader in readers) > 0
