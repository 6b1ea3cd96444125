from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from health.checks.table import Snapshot, ask
from health.checks.user import UserCheck, UserChecks
from tests.support.wait import eventually

ROOT = Path(__file__).parents[3]


def add(checks: UserChecks, function: Any, name: str = "db", **values: Any) -> None:
    options = {"live": False, "ready": True, "interval": 0.5, "timeout": 0.2} | values
    checks.add(name, function, **options)


def answer(checks: UserChecks, question: Any = "ready") -> str:
    return ask(question, checks.table, Snapshot(now=time.monotonic())).text()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(None, "ok\n", id="None passes"),
        pytest.param(True, "ok\n", id="True passes"),
        pytest.param(False, "[-]db failed: said no\n", id="False fails"),
        pytest.param("", "[-]db failed: said no\n", id="an empty reason fails"),
        pytest.param("3 replicas lag", "[-]db failed: 3 replicas lag\n", id="a text is the reason"),
        pytest.param(0, "[-]db failed: said no\n", id="any other value fails"),
    ],
)
def test_what_a_check_returns_is_its_verdict(outcome: object, expected: str) -> None:
    checks = UserChecks()
    add(checks, lambda: outcome)
    checks.run_due()
    eventually(lambda: answer(checks) == expected, message=lambda: answer(checks))


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit("secret")])
def test_only_the_log_gets_the_text_of_an_exception(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    checks = UserChecks()
    add(checks, fail)
    checks.run_due()
    eventually(lambda: answer(checks) == f"[-]db failed: raised {type(error).__name__}\n")
    assert "secret" in caplog.text


def test_before_its_first_run_a_check_fails_readiness_and_startup_but_not_liveness() -> None:
    checks = UserChecks()
    add(checks, lambda: None, live=True)
    assert "has not finished its first run" in answer(checks, "ready")
    assert "has not finished its first run" in answer(checks, "started")
    assert answer(checks, "live") == "ok\n"


def test_a_check_that_hangs_fails_holds_one_thread_and_recovers() -> None:
    checks = UserChecks()
    release = threading.Event()
    add(checks, lambda: release.wait(20) or None, live=True)
    before = threading.active_count()
    checks.run_due()
    eventually(lambda: "no answer for" in answer(checks) and "no answer for" in answer(checks, "live"))
    began = time.monotonic()
    while time.monotonic() - began < 1.5:  # three intervals
        checks.run_due()
        assert threading.active_count() == before + 1, "runs must not pile up"
        time.sleep(0.05)
    release.set()
    eventually(lambda: "no answer" not in answer(checks))
    release.clear()
    add(checks, lambda: None, name="other")
    checks.run_due()
    eventually(lambda: threading.active_count() <= before + 1)
    release.set()


def test_the_last_verdict_counts_until_the_present_run_times_out() -> None:
    check = UserCheck("db", lambda: None, interval=1.0, timeout=2.0)
    check._spawn = lambda run: None  # never finishes
    check._end(None)
    check.begin(100.0)
    assert check.reason(101.9, pending_ok=False) is None
    assert check.reason(102.1, pending_ok=False) == "no answer for 2.1 s, the time-out is 2 s"


def test_runs_begin_on_schedule_and_one_at_a_time() -> None:
    check = UserCheck("db", lambda: None, interval=10.0, timeout=2.0)
    check._spawn = lambda run: None
    assert check.due(100.0)
    check.begin(100.0)
    assert not check.due(150.0), "the run still goes on"
    check._end(None)
    assert check.due(150.0)
    check.begin(150.0)
    check._end(None)
    assert (check.due(159.9), check.due(160.0)) == (False, True)


def test_a_check_whose_thread_cannot_start_fails() -> None:
    def refuse(run: object) -> None:
        raise RuntimeError("can't start new thread")

    check = UserCheck("db", lambda: None, 1.0, 1.0)
    check._spawn = refuse
    check.begin(1.0)
    assert check.reason(1.0, pending_ok=False) == "could not be run: RuntimeError"
    assert check.due(2.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"name": ""}, "name", id="no name"),
        pytest.param({"name": "two words"}, "without spaces", id="a space"),
        pytest.param({"name": "x\n[+]y"}, "printable", id="a line break"),
        pytest.param({"name": "canary"}, "already", id="a built-in name"),
        pytest.param({"name": "taken"}, "already", id="twice"),
        pytest.param({"live": False, "ready": False}, "counts for nothing", id="counts for nothing"),
        pytest.param({"interval": 0.1}, "at least 0.5 s", id="too often"),
        pytest.param({"interval": float("nan")}, "at least 0.5 s", id="not a number"),
        pytest.param({"timeout": 0}, "more than 0", id="no time"),
    ],
)
def test_add_refuses_an_invalid_check(values: dict[str, Any], message: str) -> None:
    checks = UserChecks()
    add(checks, lambda: None, name="taken")
    with pytest.raises(ValueError, match=message):
        add(checks, lambda: None, **({"name": "mine"} | values))
    assert len(checks.table) == 1


GEVENT = """
    from gevent import monkey; monkey.patch_all()
    import ctypes, sys, time, gevent
    from health.checks.user import UserChecks
    from health.checks.table import Snapshot, ask
    blocking = ctypes.CDLL(None)
    checks = UserChecks()
    checks.add("hangs", lambda: blocking.sleep(60) and None, live=False, ready=True, interval=0.5, timeout=0.3)
    checks.add("sleeps", lambda: time.sleep(0.05), live=False, ready=True, interval=0.5, timeout=5)
    worst = 0.0
    began = time.monotonic()
    while time.monotonic() - began < 1.2:
        checks.run_due()
        before = time.monotonic()
        gevent.sleep(0.01)
        worst = max(worst, time.monotonic() - before)
    text = ask("ready", checks.table, Snapshot(now=time.monotonic())).text(verbose=True)
    print(f"{worst:.3f}", text.replace(chr(10), "|"))
"""


def test_under_gevent_a_check_that_blocks_in_c_code_delays_neither_the_loop_nor_the_exit() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GEVENT)], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    worst, text = done.stdout.split(" ", 1)
    assert float(worst) < 0.3, "the loop stood still"
    assert "[-]hangs failed: no answer for" in text
    assert "[+]sleeps ok" in text
    assert time.monotonic() - began < 10, "the hanging thread kept the process"
