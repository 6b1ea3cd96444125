"""The prober times a request from when it was due, and accepts only a 200 as an answer."""

from __future__ import annotations

import threading
import time

import pytest

from bench import probing
from tests.bench.known_server import KnownServer


def test_a_stall_counts_for_every_request_that_it_delayed() -> None:
    stop, took, done = threading.Event(), [], 0

    def work() -> None:
        nonlocal done
        done += 1
        if done == 3:
            time.sleep(0.2)
        if done == 20:
            stop.set()

    assert probing.on_schedule(work, 0.01, stop, took) == 0
    assert took[2] >= 0.2
    assert took[6] >= 0.15  # due 40 ms into the stall
    assert len([each for each in took if each > 0.1]) >= 8


def test_failures_are_counted_and_do_not_stop_the_prober() -> None:
    stop, took, failures = threading.Event(), [], iter([ConnectionRefusedError(), TimeoutError()])

    def work() -> None:
        failure = next(failures, None)
        if failure:
            raise failure
        stop.set()

    assert probing.on_schedule(work, 0.001, stop, took) == 2
    assert len(took) == 3


def test_only_a_200_is_an_answer() -> None:
    with KnownServer(100) as server:
        probing.ask(server.port, "/events/a")
        server.status = 503
        with pytest.raises(ConnectionError, match="503"):
            probing.ask(server.port, "/events/a")


def test_quantiles_of_few_values() -> None:
    assert [probing.quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
