"""Both kinds of bell, with threads and in gevent's event loop; this thread is the sleeper."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import gevent
import pytest

from sse.runtime.bell import Bell, GeventBell, ThreadBell

LONG, SOON = 10.0, 5.0  # seconds; a busy machine may take a while to run a thread


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture(params=[ThreadBell, GeventBell])
def bell(request: pytest.FixtureRequest, pipe: tuple[int, int]) -> Iterator[Bell]:
    with closing(request.param([pipe[0]])) as bell:
        yield bell


def slept(bell: Bell, seconds: float) -> tuple[str, float]:
    began = time.monotonic()
    return bell.wait(seconds), time.monotonic() - began


def after_a_moment(work: Callable[[], Any]) -> threading.Timer:
    timer = threading.Timer(0.1, work)
    timer.start()
    return timer


def test_a_sleep_lasts_while_nothing_happens(bell: Bell) -> None:
    why, seconds = slept(bell, 0.2)
    assert why == "timeout" and 0.15 <= seconds < SOON  # gevent's loop counts from the beginning of its turn


def test_a_sleep_of_no_time_returns(bell: Bell) -> None:
    assert slept(bell, 0)[0] == "timeout"
    assert slept(bell, -1)[0] == "timeout"


def test_another_thread_ends_a_sleep_once(bell: Bell) -> None:
    timer = after_a_moment(bell.ring)
    why, seconds = slept(bell, LONG)
    assert why == "rung" and seconds < SOON
    timer.join()
    assert slept(bell, 0.1)[0] == "timeout"


@pytest.mark.parametrize("elsewhere", [True, False], ids=["by another thread", "by its own"])
def test_rings_while_nobody_sleeps_end_only_the_next_sleep(bell: Bell, elsewhere: bool) -> None:
    def ring() -> None:
        for _ in range(100_000):  # a pipe holds 65,536 bytes
            bell.ring()

    if elsewhere:
        thread = threading.Thread(target=ring)
        thread.start()
        thread.join()
    else:
        ring()
    gevent.sleep(0.01)  # the loop has a turn while nobody sleeps
    why, seconds = slept(bell, LONG)
    assert why == "rung" and seconds < SOON
    assert slept(bell, 0.1)[0] == "timeout"


def test_a_readable_descriptor_ends_sleeps_until_it_is_read(bell: Bell, pipe: tuple[int, int]) -> None:
    timer = after_a_moment(partial(os.write, pipe[1], b"x"))
    why, seconds = slept(bell, LONG)
    assert why == "readable" and seconds < SOON
    timer.join()
    assert slept(bell, LONG)[0] == "readable"
    os.read(pipe[0], 1)
    assert slept(bell, 0.1)[0] == "timeout"


def test_a_ring_from_a_greenlet_disturbs_no_later_wait(pipe: tuple[int, int]) -> None:
    """A late switch would end whatever the greenlet waits for by then."""
    with closing(GeventBell([pipe[0]])) as bell:
        ringers = [gevent.spawn(bell.ring) for _ in range(5)]
        os.write(pipe[1], b"x")  # both at once
        assert bell.wait(LONG) in ("rung", "readable")
        os.read(pipe[0], 1)
        began = time.monotonic()
        gevent.sleep(0.2)
        assert time.monotonic() - began >= 0.15
        gevent.joinall(ringers)
        while slept(bell, 0)[0] == "rung":  # rings that came after the sleep had ended
            pass
        ringers = [gevent.spawn(bell.ring) for _ in range(5)]
        assert bell.wait(LONG) == "rung"
        assert slept(bell, 0.1)[0] == "timeout", "what rang while it slept ended the next sleep, too"
        gevent.joinall(ringers)


@pytest.mark.parametrize("kind", [ThreadBell, GeventBell])
def test_a_closed_bell_keeps_no_descriptor_and_late_rings_are_harmless(
    kind: Callable[[list[int]], Bell], pipe: tuple[int, int]
) -> None:
    kind([pipe[0]]).close()  # the loop's own descriptors stay open
    before = os.listdir("/proc/self/fd")
    bell = kind([pipe[0]])
    bell.close()
    assert os.listdir("/proc/self/fd") == before
    bell.ring()
    thread = threading.Thread(target=bell.ring)
    thread.start()
    thread.join()
    os.fstat(pipe[0])  # still open: it is its owner's
