"""Who listens: a worker's own counts, its note in the log, and the sum over all workers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from sse.events.names import CANARY_CHANNEL
from sse.log import LogUnavailable
from sse.streams import listeners
from sse.streams.listeners import EXPIRY, INTERVAL, NOTE_KIND, PROLONG, Listeners
from tests.sse.worker_parts import Parts
from tests.support.wait import eventually


def notes(worker: Parts) -> list[dict[str, int]]:
    return [json.loads(text) for text in worker.log.inner.notes(NOTE_KIND).values()]


def test_streams_of_all_workers_count_for_each_channel_that_they_get(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    one, two = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    one.open(None, "a"), one.open(None, "a", "b"), one.open(None, "a", types=frozenset({"x"}))
    two.open(None, "a*"), two.open(None, "*"), two.open(None, "b"), two.open(None, CANARY_CHANNEL)
    for worker in (one, two):
        worker.hub.counting.put()
    for worker in (one, two):
        found = worker.hub.listeners()
        assert found.selectors == {"a": 3, "b": 2, "a*": 1, "*": 1}
        assert [found.of(channel) for channel in ("a", "b", "ab", "c", CANARY_CHANNEL)] == [5, 3, 2, 1, 0]


def test_a_workers_own_streams_count_at_once_and_others_once_they_are_in_the_log(
    tmp_path: Path, closing: ExitStack
) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    one, two = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    stream = one.open(None, "a")
    assert (one.hub.listeners().of("a"), two.hub.listeners().of("a")) == (1, 0)
    one.hub.counting.put()
    assert two.hub.listeners().of("a") == 1
    one.hub.closed(stream.stream, "client")  # type: ignore[arg-type]
    assert (one.hub.listeners().of("a"), two.hub.listeners().of("a")) == (0, 1)
    one.hub.counting.put()
    assert two.hub.listeners().of("a") == 0 and notes(two) == []


def test_a_stopped_worker_takes_its_note_back(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    other = closing.enter_context(Parts(url))
    with Parts(url) as worker:
        worker.open(None, "a")
        worker.hub.counting.put()
        assert other.hub.listeners().of("a") == 1
        worker.hub.stop()
        assert other.hub.listeners().of("a") == 0


def test_a_dead_workers_streams_are_gone_when_its_note_expires(
    tmp_path: Path, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EXPIRY == 15 and INTERVAL == 5, "as the API says"
    monkeypatch.setattr(listeners, "EXPIRY", 0.2)
    url = f"sqlite:///{tmp_path}/h.db"
    dead, other = closing.enter_context(Parts(url)), closing.enter_context(Parts(url))
    dead.open(None, "a")
    dead.hub.counting.put()
    assert other.hub.listeners().of("a") == 1
    eventually(lambda: other.hub.listeners().of("a") == 0, 5)


def test_a_note_is_put_when_the_counts_have_changed_and_else_before_it_expires(
    parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = parts()
    assert worker.hub.counting.put() == INTERVAL
    assert not worker.log.asked["put_note"], "nobody listens"
    worker.open(None, "a")
    for _ in range(3):
        worker.hub.counting.put()
    assert worker.log.asked["put_note"] == 1
    worker.open(None, "b")
    worker.hub.counting.put()
    assert worker.log.asked["put_note"] == 2 and notes(worker) == [{"a": 1, "b": 1}]
    now = time.monotonic()
    monkeypatch.setattr(listeners.time, "monotonic", lambda: now + PROLONG + 1)
    worker.hub.counting.put()
    assert worker.log.asked["put_note"] == 3
    assert PROLONG + INTERVAL < EXPIRY, "it is put again in time"


def test_a_log_that_is_away_costs_a_turn(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.open(None, "a")
    worker.log.down = True
    assert worker.hub.counting.put() == INTERVAL
    with pytest.raises(LogUnavailable):
        worker.hub.listeners()
    worker.log.down = False
    worker.hub.counting.put()
    assert notes(worker) == [{"a": 1}]


def test_a_note_that_waits_for_the_log_holds_up_nothing_else(parts: Callable[..., Parts]) -> None:
    worker = parts()
    worker.open(None, "a")
    waiting, go_on = threading.Event(), threading.Event()
    put_note = worker.log.inner.put_note

    def slow(*args: object, **options: object) -> bool:
        waiting.set()
        assert go_on.wait(10)
        return put_note(*args, **options)  # type: ignore[arg-type]

    worker.log.inner.put_note = slow  # type: ignore[method-assign]
    putting = threading.Thread(target=worker.hub.counting.put)
    putting.start()
    assert waiting.wait(5)
    stream = worker.open(None, "b")
    worker.append("1", channel="b")
    assert stream.read(1) == ["1"] and worker.hub.status().tail_age < 3
    go_on.set()
    putting.join(5)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"a": "1", "b": true, "c": null, "d": 2}'])
def test_a_note_of_another_version_does_no_harm(parts: Callable[..., Parts], text: str) -> None:
    worker = parts()
    worker.log.inner.put_note(NOTE_KIND, "other", text, 60)
    assert worker.hub.listeners().selectors in ({}, {"d": 2})


def test_listeners_of_ten_thousand_selectors_are_found_by_prefix() -> None:
    found = Listeners({**{f"user:{n}": 1 for n in range(10_000)}, **{f"user:{n}*": 1 for n in range(10_000)}})
    assert found.of("user:1234") == 1 + len(("user:1*", "user:12*", "user:123*", "user:1234*"))
