"""An append to SQLite that failed: was it stored? "no" only where that is certain."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sse.events.model import Event
from sse.log import LogUnavailable
from sse.log.sqlite import file as sqlite_file
from sse.log.sqlite.engine import SQLiteLog
from sse.log.sqlite.group_commit import Publish
from tests.sse.log.conftest import Place
from tests.support.wait import eventually

A = [Event("a", "x")]


class Writer:
    """The log's connection for writing, with a commit that fails: before it has been done, or after."""

    def __init__(self, log: SQLiteLog, error: BaseException, *, done: bool) -> None:
        self._inner, self._error, self._done = log._writer, error, done
        log._writer = self  # type: ignore[assignment]
        self.log = log

    def execute(self, statement: str, *values: Any) -> Any:
        if statement != "COMMIT":
            return self._inner.execute(statement, *values)
        self.log._writer = self._inner
        if self._done:
            self._inner.execute(statement)
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def failed(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("told to fail")
    error.sqlite_errorcode = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "done", "stored"),
    [
        pytest.param(failed(sqlite3.SQLITE_FULL), False, "no", id="the disk is full"),
        pytest.param(failed(sqlite3.SQLITE_IOERR_WRITE), False, "unknown", id="an I/O error"),
        pytest.param(failed(sqlite3.SQLITE_IOERR_FSYNC), True, "unknown", id="an I/O error after the commit's record"),
        pytest.param(OSError("told to fail"), True, "unknown", id="an error of the system"),
    ],
)
def test_commit_that_fails_is_unknown_unless_sqlite_has_certainly_undone_it(
    open_sqlite: Callable[..., SQLiteLog], error: Exception, done: bool, stored: str
) -> None:
    log = open_sqlite()
    Writer(log, error, done=done)
    with pytest.raises(LogUnavailable) as failure:
        log.append(A, key="k", digest=b"1")
    assert failure.value.stored == stored
    positions = log.append(A, key="k", digest=b"1")
    assert [record.position for record in log.read(None, 0, 10, 100)] == positions


def test_interruption_between_the_commit_and_the_answer_leaves_it_unknown_to_those_who_wait(
    open_sqlite: Callable[..., SQLiteLog]
) -> None:
    """A signal handler that raises (gunicorn's do) runs after the commit, and before anybody has noted it."""
    log = open_sqlite()
    with ThreadPoolExecutor(2) as pool:
        with log._turn:
            both = [pool.submit(log.append, A) for _ in range(2)]
            eventually(lambda: len(log._queue) == 2)
            Writer(log, KeyboardInterrupt(), done=True)
        errors = [each.exception(5) for each in both]
    assert sorted(type(error).__name__ for error in errors) == ["KeyboardInterrupt", "LogUnavailable"]
    (told,) = [error for error in errors if isinstance(error, LogUnavailable)]
    assert told.stored == "unknown" and len(log.read(None, 0, 10, 100)) == 2


def test_failure_before_the_commit_stores_nothing(
    open_sqlite: Callable[..., SQLiteLog], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "LOCK_SECONDS", 0.1)
    log = open_sqlite()
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match="locked") as failure:
            log.append(A)
        assert failure.value.stored == "no"
    finally:
        holder.close()
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(LogUnavailable):
        log._check_same(log._writer, 0)
    with pytest.raises(LogUnavailable, match="removed or replaced") as failure:
        log.append(A)
    assert failure.value.stored == "no"


def test_place_that_cannot_be_opened_stores_nothing(path: Path) -> None:
    path.write_text("a file where a directory should be")
    with pytest.raises(LogUnavailable) as failure:
        SQLiteLog(str(path / "log.db"), retain_events=10, retain_seconds=10)
    assert failure.value.stored == "no"


def test_closed_log_stores_nothing(place: Place) -> None:
    log = place.open()
    log.close()
    with pytest.raises(LogUnavailable) as failure:
        log.append(A)
    assert failure.value.stored == "no"


def test_publisher_that_leaves_while_a_thread_takes_the_queue_takes_nobody_with_it(
    open_sqlite: Callable[..., SQLiteLog]
) -> None:
    """Counted first and taken then, the queue could be shorter: those already taken were never answered."""
    log = open_sqlite()

    class Shrinking(type(log._queue)):  # type: ignore[misc]
        def popleft(self) -> Any:
            first = super().popleft()
            if self:
                super().pop()  # as an interrupted publisher does
            return first

    with ThreadPoolExecutor(1) as pool:
        with log._turn:
            waiting = pool.submit(log.append, A)
            eventually(lambda: len(log._queue) == 1)
            log._queue = Shrinking([*log._queue, Publish(A, None, b"", None)])
        assert len(waiting.result(5)) == 1
