"""A clock that is stepped, under Redis (which makes the ids) and under an instance: order and ids stay as they are."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.reader import reckon
from tests.support.programs import require_program
from tests.support.redis_server import RedisServer
from tests.support.server import Server
from tests.support.wait import eventually


class Clock:
    """libfaketime's: what is started in its environment has a wall clock that can be stepped while it runs. The
    monotonic clock is left alone, as the kernel does it."""

    def __init__(self, directory: Path) -> None:
        require_program("faketime", "faketime")
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self._file = directory / "clock"
        self.step(0)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }

    def step(self, seconds: int) -> None:
        """So many seconds off the right time, within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


STEPS = (-3600, 3600, 0)  # seconds: back, two hours forward, and right again


def redis_clock(fleet: Fleet) -> float:
    return float(fleet.redis.run("TIME")[0])


def wait_for_step(fleet: Fleet, off: int) -> None:
    eventually(lambda: abs(redis_clock(fleet) - time.time() - off) < 60, 5, "libfaketime does not step")


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
            # The cursors of who comes back now are of an hour ago, or of an hour ahead.
            os.kill(fleet.servers[0].worker_pids()[0], signal.SIGKILL)
            recorder.progress()
    reckon(f"Redis's clock off by {STEPS} s", readers, recorder.finish())
    assert sum(reader.reconnects for reader in readers) > 0


def test_the_clock_of_an_instance_is_stepped_back_and_forward(clock: Clock, stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(1))
    odd = Server(startup_timeout=40.0, **{**fleet.env, "SSE_LOG": fleet.url(0), **clock.env})
    stack.callback(odd.close)
    odd.start()
    readers = [*fleet.readers(stack, 3, [odd.port]), *fleet.readers(stack, 3)]

    def off() -> float:
        """Seconds, by the unix milliseconds of a heartbeat."""
        return next(
            int(block.data or 0) / 1000 - time.time() for _, block in reversed(readers[0].diary) if block.event
        )

    with fleet.recorder() as recorder, fleet.recorder(odd.port, channels=("b",), rate=2) as odd_recorder:
        for step in STEPS:
            clock.step(step)
            eventually(lambda step=step: abs(off() - step) < 60, 8, "libfaketime does not step")
            odd_recorder.progress(2)
            os.kill(odd.worker_pids()[0], signal.SIGKILL)
            recorder.progress()
            odd_recorder.progress(2)
    acknowledged = sorted([*recorder.finish(), *odd_recorder.finish()], key=lambda one: one.position)
    reckon(f"an instance's clock off by {STEPS} s", readers, acknowledged)
    assert sum(reader.reconnects for reader in readers) > 0
