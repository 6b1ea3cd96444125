"""Loops that outlive what their turns raise."""

from __future__ import annotations

import logging
import threading

import pytest

from sse.runtime import cooperation as runtime
from sse.runtime.cooperation import repeat

logger = logging.getLogger("headwater.test")


def turns(*outcomes: float | BaseException) -> list[float]:
    """The pauses of a loop whose turns end like this; then it is stopped."""
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


def test_a_duty_has_its_turns_when_it_asks_for_them() -> None:
    assert turns(3.0, 0.5) == [7.0, 3.0, 0.5]


def test_a_duty_that_fails_is_tried_again_and_said_once_until_it_has_worked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    again = runtime.AFTER_FAILURE
    bug = ZeroDivisionError("a bug")
    assert turns(bug, bug, 3.0, bug, 3.0) == [7.0, again, again, 3.0, again, 3.0]
    said = "counting failed; it is tried again each second, and this is said once", "counting works again"
    assert [record.getMessage() for record in caplog.records] == [*said, *said]
    assert "a bug" in caplog.text


def test_a_duty_that_is_told_to_exit_ends() -> None:
    with pytest.raises(SystemExit):
        turns(SystemExit())
