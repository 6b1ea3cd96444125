from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from health.signs import canary as canary_module
from health.signs.canary import Canary
from tests.health.fakes import FakeSource, heartbeat, opening
from tests.support.wait import eventually


class Running:
    """A canary that runs on a source which may be taken away."""

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


@pytest.fixture(params=["takeover", "generator"])
def running(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(canary_module, "RETRY", 0.05)
    monkeypatch.setattr(canary_module, "POLL", 0.1)
    running = Running(FakeSource(takeover=request.param == "takeover"))
    yield running
    running.end()


def sent(source: FakeSource, age: float) -> bool:
    source.send(heartbeat(age))
    return True


def test_a_heartbeat_that_arrives_is_seen_with_its_own_age(running: Running) -> None:
    assert running.source is not None
    source = running.source
    # The generator subscribes when its thread gets there, so heartbeats are sent until one is seen.
    eventually(lambda: sent(source, 3.0) and running.canary.seen, interval=0.05)
    assert running.age() == pytest.approx(3.0, abs=0.5)
    eventually(lambda: sent(source, 0.0) and running.age() < 0.5, interval=0.05)


def test_other_blocks_and_split_heartbeats_are_told_apart() -> None:
    running = Running(FakeSource())
    source = running.source
    assert source is not None
    try:
        eventually(lambda: source.attached)
        source.send(b": comment\n\nevent: update\ndata: 1732345678901\n\nevent: heartbeat\ndata: soon\n\n")
        source.send(opening())
        for letter in heartbeat():
            assert running.canary.seen == 0.0
            source.send(bytes((letter,)))
        eventually(lambda: running.canary.seen)
    finally:
        running.end()


def test_it_subscribes_again_when_its_stream_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_module, "RETRY", 0.05)
    monkeypatch.setattr(canary_module, "POLL", 0.1)
    running = Running(FakeSource())
    source = running.source
    assert source is not None
    try:
        eventually(lambda: source.attached)
        source.close()  # a lease, a drain
        eventually(lambda: source.attached)
        source.send(heartbeat())
        eventually(lambda: running.canary.seen)
    finally:
        running.end()


def test_it_subscribes_again_when_its_stream_goes_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_module, "RETRY", 0.05)
    monkeypatch.setattr(canary_module, "POLL", 0.1)
    monkeypatch.setattr(canary_module, "RESUBSCRIBE", 0.5)
    running = Running(FakeSource())
    source = running.source
    assert source is not None
    try:
        eventually(lambda: len(source.attached) >= 2, 5.0)
    finally:
        running.end()


def test_a_stream_that_is_slow_but_not_dead_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats come, with pauses in which nothing is read."""
    monkeypatch.setattr(canary_module, "POLL", 0.02)
    monkeypatch.setattr(canary_module, "RESUBSCRIBE", 2.0)
    running = Running(FakeSource())
    source = running.source
    assert source is not None
    try:
        eventually(lambda: source.attached)
        for _ in range(30):
            source.send(heartbeat())
            time.sleep(0.1)
        assert len(source.attached) == 1
    finally:
        running.end()


def test_it_outlives_a_service_that_is_not_there_yet_or_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(canary_module, "RETRY", 0.05)
    monkeypatch.setattr(canary_module, "POLL", 0.1)
    running = Running(None)
    try:

        class Broken(FakeSource):
            def attach(self, *args: object) -> None:
                raise OSError("the log refused")

        running.source = Broken()
        eventually(lambda: "the log refused" in caplog.text)
        time.sleep(0.2)  # several more tries
        assert caplog.text.count("the log refused") == 1, "said once, not at every try"
        running.source = FakeSource()
        eventually(lambda: running.source is not None and running.source.attached)
        running.source.send(heartbeat())
        eventually(lambda: running.canary.seen)
    finally:
        running.end()
