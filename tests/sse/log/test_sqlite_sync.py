"""A model of the group commit with ``sync=full``: random publishers, syncs of random length, and syncs that fail."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.sqlite import sync as sync_module
from sse.log.sqlite.engine import SQLiteLog
from tests.sse.log.conftest import Follower, Place


class Commit(NamedTuple):
    """A commit with its sync. begun, ended: monotonic seconds. positions: what it made durable."""

    begun: float
    ended: float
    positions: frozenset[int]
    ok: bool


class Answer(NamedTuple):
    called: float
    answered: float
    position: int | None  # None: refused
    stored: str


class Writer:
    """The log's writing connection, on a disk whose syncs take their time and may fail."""

    def __init__(self, log: SQLiteLog, chance: random.Random, failing: float) -> None:
        self._inner, self._chance, self._failing = log._writer, chance, failing
        log._writer = self  # type: ignore[assignment]
        self.commits: list[Commit] = []
        self._known = 0

    def execute(self, statement: str, *values: Any) -> Any:
        if statement != "COMMIT":
            return self._inner.execute(statement, *values)
        begun = time.monotonic()
        added = self._inner.execute("SELECT position FROM events WHERE position > ?", (self._known,)).fetchall()
        positions = frozenset(position for (position,) in added)
        time.sleep(self._chance.uniform(0, 0.02))
        ok = self._chance.random() >= self._failing
        if ok:
            self._inner.execute("COMMIT")
            self._known = max(positions, default=self._known)
        self.commits.append(Commit(begun, time.monotonic(), positions, ok))
        if not ok:
            error = sqlite3.OperationalError("told to fail")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC  # type: ignore[attr-defined]
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def publish(log: SQLiteLog, chance: random.Random, number: int) -> list[Answer]:
    answers = []
    for _ in range(number):
        called = time.monotonic()
        try:
            (position,) = log.append([Event("a", "x")])
            answers.append(Answer(called, time.monotonic(), position, "yes"))
        except LogUnavailable as error:
            answers.append(Answer(called, time.monotonic(), None, error.stored))
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.01))
    return answers


@pytest.mark.parametrize("failing", [0.0, 0.2], ids=["good disk", "failing disk"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_acknowledged_or_delivered_was_synced_and_whoever_waits_is_in_the_next_commit(
    open_synced: Callable[[], SQLiteLog],
    follow: Callable[..., Follower],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    failing: float,
) -> None:
    chance = random.Random(seed)
    log = open_synced()
    written_again: list[float] = []
    write_again = sync_module.Sync.write_again

    def note(self: sync_module.Sync) -> None:
        write_again(self)
        written_again.append(time.monotonic())

    monkeypatch.setattr(sync_module.Sync, "write_again", note)
    writer = Writer(log, chance, failing)
    follower = follow(log)
    publishers = chance.randrange(2, 24)
    with ThreadPoolExecutor(publishers) as pool:
        runs = [pool.submit(publish, log, random.Random(f"{seed} {n}"), 12) for n in range(publishers)]
        answers = [answer for run in runs for answer in run.result(30)]
    commits = writer.commits
    for answer in answers:
        if answer.position is None:
            assert answer.stored == "unknown"
            continue
        (covering,) = [commit for commit in commits if commit.ok and answer.position in commit.positions]
        assert answer.called <= covering.begun and covering.ended <= answer.answered
        begun = sum(answer.called < commit.begun <= covering.begun for commit in commits if commit.ok)
        assert begun <= 3, "it waited, and was left out of the next commit"
    durable = {position for commit in commits if commit.ok for position in commit.positions}
    assert {answer.position for answer in answers if answer.position} == durable
    follower.wait_for(len(durable))
    assert {record.position for record in follower.records} == durable
    for before, after in zip(commits, commits[1:], strict=False):
        if not before.ok:
            assert any(before.ended <= at <= after.begun for at in written_again), "stored on after a failed sync"
    assert len(commits) < len(answers), "no two publishers shared a commit"


@pytest.fixture
def open_synced(tmp_path: Any, closing: Any) -> Callable[[], SQLiteLog]:
    def open_it() -> SQLiteLog:
        log = Place(f"sqlite:///{tmp_path}/log.db?sync=full", closing).open()
        assert isinstance(log, SQLiteLog)
        return log

    return open_it


def test_publishers_are_told_that_nothing_was_stored_while_it_cannot_be_written_again(
    open_synced: Callable[[], SQLiteLog],
) -> None:
    log = open_synced()
    log.append([Event("a", "x")])
    reader = log._readers[0] if log._readers else sqlite3.connect(log._path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    log.append([Event("a", "y")])  # behind what the reader sees, so the write-ahead log cannot be emptied
    log._sync.failed = True
    with pytest.raises(LogUnavailable, match="a sync has failed") as refusal:
        log.append([Event("a", "z")])
    assert refusal.value.stored == "no"
    reader.execute("COMMIT")
    log.append([Event("a", "z")])
    assert not log._sync.failed and len(log.read(None, 0, 10, 1000)) == 3
    reader.close()
