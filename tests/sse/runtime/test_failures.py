"""Loops that survive exceptions, and how often they log them."""

from __future__ import annotations

import logging
import threading

import pytest

from sse.runtime import failures as module
from sse.runtime.failures import Failures, repeat

logger = logging.getLogger("headwater.test")


class Bug(Exception):
    pass


def turns(*outcomes: float | BaseException) -> list[float]:
    """Return the pauses of a loop whose turns end like this; after the last one it is stopped."""
    pauses, left = list[float](), list(outcomes)

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return not left

    def duty() -> float:
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    repeat("counting", duty, Stop(), logger, first=7.0)
    return pauses


def fail(failures: Failures, *what: str) -> None:
    for one in what:
        try:
            raise Bug
        except Bug:
            failures.report(one)


def test_a_duty_chooses_the_time_of_its_next_turn() -> None:
    assert turns(3.0, 0.5) == [7.0, 3.0, 0.5]


def test_a_duty_that_fails_is_tried_again_and_logged_once_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    again = module.AFTER_FAILURE
    bug = Bug("a bug")
    assert turns(bug, bug, 3.0, bug, 3.0) == [7.0, again, again, 3.0, again, 3.0]
    said = "counting failed; it is tried again each second (said once a minute)", "counting works again"
    assert [record.getMessage() for record in caplog.records] == [*said, *said]
    assert "a bug" in caplog.text


def test_an_exit_ends_a_duty() -> None:
    with pytest.raises(SystemExit):
        turns(SystemExit())


def test_each_kind_of_failure_is_logged_once_a_minute_with_its_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = Failures(logger)
    fail(failures, "one", "one", "two", "one")
    assert [record.getMessage().split()[0] for record in caplog.records] == ["one", "two"]
    assert all(record.exc_info for record in caplog.records)
    monkeypatch.setattr(module, "SAY_AGAIN", 0.0)
    fail(failures, "one")
    assert len(caplog.records) == 3


def test_the_end_of_a_failure_is_news_only_after_the_failure_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(logger)
    failures.over("one", "works again")
    fail(failures, "one")
    failures.over("two", "works again")
    failures.over("one", "works again")
    failures.over("one", "works again")
    assert [record.getMessage() for record in caplog.records] == ["one (said once a minute)", "works again"]
