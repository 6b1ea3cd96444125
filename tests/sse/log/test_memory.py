"""What the memory engine forgets."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from sse.events.model import Event
from sse.log.memory import MemoryLog


def test_old_idempotency_keys_are_forgotten_a_bite_at_a_time_and_young_ones_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = time.time_ns
    with closing(MemoryLog(retain_events=10_000, retain_seconds=86_400)) as log:
        monkeypatch.setattr(time, "time_ns", lambda: real() - 901 * 10**9)
        for n in range(600):
            log.append([Event("a", "x")], key=f"old{n}", digest=b"1")
        monkeypatch.setattr(time, "time_ns", lambda: real() - 890 * 10**9)
        young = log.append([Event("a", "x")], key="young", digest=b"1")
        monkeypatch.undo()
        assert [log.trim() for _ in range(3)] == [500, 100, 0]
        assert log.append([Event("a", "x")], key="young", digest=b"1") == young
        assert list(log._publishes) == ["young"]
