"""The contract of notes, for every engine: small values with an expiry, which all workers share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sse.log import Log
from tests.sse.log.conftest import Place
from tests.support.wait import eventually


def test_notes_are_kept_by_kind_and_name(log: Log) -> None:
    assert log.notes("listeners") == {}
    assert log.put_note("listeners", "w1", '{"orders": 2}', 60)
    assert log.put_note("listeners", "w2", "é\n\0 x", 60)
    assert log.put_note("revoked", "w1", "3", 60)
    assert log.put_note("listeners", "w1", "", 60)
    assert log.notes("listeners") == {"w1": "", "w2": "é\n\0 x"}
    log.drop_note("listeners", "w1")
    log.drop_note("listeners", "nobody")
    assert log.notes("listeners") == {"w2": "é\n\0 x"}
    assert log.notes("revoked") == {"w1": "3"}


def test_a_note_expires_unless_it_is_put_again(log: Log) -> None:
    log.put_note("k", "short", "x", 0.05)
    log.put_note("k", "long", "x", 60)
    log.put_note("k", "prolonged", "x", 0.05)
    log.put_note("k", "prolonged", "x", 60)
    eventually(lambda: log.notes("k").keys() == {"long", "prolonged"})
    assert log.put_note("k", "short", "y", 60, expected=None), "an expired one is none"
    assert log.notes("k")["short"] == "y"


def test_a_note_is_exchanged_only_for_the_one_that_was_expected(log: Log) -> None:
    assert not log.put_note("runs", "r", "b", 60, expected="a")
    assert log.put_note("runs", "r", "a", 60, expected=None)
    assert not log.put_note("runs", "r", "b", 60, expected=None)
    assert not log.put_note("runs", "r", "b", 60, expected="A")
    assert log.put_note("runs", "r", "b", 60, expected="a")
    assert log.notes("runs") == {"r": "b"}
    log.drop_note("runs", "r")
    assert not log.put_note("runs", "r", "c", 60, expected="b")


def test_of_many_who_exchange_a_note_one_does(log: Log) -> None:
    barrier = threading.Barrier(8)

    def take(n: int) -> bool:
        barrier.wait(10)
        return log.put_note("runs", "lease", str(n), 60, expected=None)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(take, range(8)))
    assert outcomes.count(True) == 1
    assert log.notes("runs") == {"lease": str(outcomes.index(True))}


def test_notes_are_shared_by_workers_and_outlive_a_restart(shared_place: Place) -> None:
    log, other = shared_place.open(), shared_place.open()
    log.put_note("revoked", "alice", "1763900000000", 60)
    assert other.notes("revoked") == {"alice": "1763900000000"}
    assert not other.put_note("revoked", "alice", "x", 60, expected=None)
    log.close()
    other.close()
    assert shared_place.open().notes("revoked") == {"alice": "1763900000000"}


def test_notes_are_no_events(log: Log) -> None:
    before = log.bounds()
    log.put_note("k", "n", "v", 60)
    assert log.bounds() == before and log.read(None, 0, 1000, 1 << 30) == []
