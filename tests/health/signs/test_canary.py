from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from health.signs import canary as canary_module
from health.signs.canary import Canary
from tests.health.fakes import FakeSource, heartbeat, opening
from tests.support.wait import eventually


class Running:
    """A running canary; the test may replace its ``source``."""

    def __init__(self, source: FakeSource | None) -> None:
        self.source = source
        self.stop = threading.Event()
        self.canary = Canary(lambda: self.source, self.stop)
        self.thread = threading.Thread(target=self.canary.run)
        self.thread.start()

    def age(self) -> float:
        return time.monotonic() - self.canary.seen

    def end(self) -> None:
        self.stop.set()
        self.thread.join(3)
        assert not self.thread.is_alive()
        if self.source is not None:
            self.source.close()


Run = Callable[[FakeSource | None], Running]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """``run(source)`` starts a canary that retries quickly and ends with the test."""
    monkeypatch.setattr(canary_module, "RETRY", 0.05)
    monkeypatch.setattr(canary_module, "POLL", 0.1)
    with ExitStack() as ends:

        def start(source: FakeSource | None) -> Running:
            running = Running(source)
            ends.callback(running.end)
            return running

        yield start


def sent(source: FakeSource, age: float) -> bool:
    source.send(heartbeat(age))
    return True


@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "generator"])
def test_a_heartbeat_counts_from_when_it_was_made(run: Run, takeover: bool) -> None:
    source = FakeSource(takeover)
    running = run(source)
    # The generator subscribes when its thread runs, so send heartbeats until one is seen.
    eventually(lambda: sent(source, 3.0) and running.canary.seen, interval=0.05)
    assert running.age() == pytest.approx(3.0, abs=0.5)
    eventually(lambda: sent(source, 0.0) and running.age() < 0.5, interval=0.05)


def test_only_heartbeats_count_even_in_pieces(run: Run) -> None:
    source = FakeSource()
    running = run(source)
    eventually(lambda: source.attached)
    source.send(b": comment\n\nevent: update\ndata: 1732345678901\n\nevent: heartbeat\ndata: soon\n\n")
    source.send(opening())
    for letter in heartbeat():
        assert running.canary.seen == 0.0
        source.send(bytes((letter,)))
    eventually(lambda: running.canary.seen)


def test_it_subscribes_again_when_its_stream_ends(run: Run) -> None:
    source = FakeSource()
    running = run(source)
    eventually(lambda: source.attached)
    source.close()  # a lease, a drain
    eventually(lambda: source.attached)
    source.send(heartbeat())
    eventually(lambda: running.canary.seen)


def test_it_subscribes_again_when_no_heartbeat_arrives(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_module, "RESUBSCRIBE", 0.5)
    source = FakeSource()
    run(source)
    eventually(lambda: len(source.attached) >= 2, 5.0)


def test_it_keeps_a_stream_whose_heartbeats_have_pauses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_module, "POLL", 0.02)
    monkeypatch.setattr(canary_module, "RESUBSCRIBE", 2.0)
    source = FakeSource()
    run(source)
    eventually(lambda: source.attached)
    for _ in range(30):
        source.send(heartbeat())
        time.sleep(0.1)
    assert len(source.attached) == 1


def test_it_tries_again_while_the_service_is_missing_or_raises(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeSource):
        attempts = 0

        def attach(self, *args: object) -> None:
            self.attempts += 1
            raise OSError("the log refused")

    broken = Broken()
    running = run(None)
    running.source = broken
    eventually(lambda: broken.attempts >= 4)
    assert caplog.text.count("the log refused") == 1, "logged once, not at every attempt"
    source = running.source = FakeSource()
    eventually(lambda: source.attached)
    source.send(heartbeat())
    eventually(lambda: running.canary.seen)
