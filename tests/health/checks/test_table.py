from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from health.checks.table import TABLE, Check, Limits, Question, Report, Snapshot, ask
from health.signs.board import BOOTING, DRAINING, RUNNING, Record

NOW = 1000.0


def worker(slot: int = 0, state: str = RUNNING, **values: Any) -> Record:
    base = Record(slot, 100 + slot, 1, state, True, NOW - 60, NOW - 0.3, NOW - 0.6, 0.0, 0.1, 5)
    return base._replace(**values)


def pod(*workers: Record, expected: int | None = None, **values: Any) -> Snapshot:
    count = len(workers) if expected is None else expected
    return Snapshot(now=NOW, workers=workers, expected=count, **values)


def failing(question: Question, snapshot: Snapshot) -> dict[str, str]:
    lines = ask(question, TABLE, snapshot).lines
    return {line.name: line.reason for line in lines if line.reason is not None}


READY = [
    pytest.param(
        pod(worker(0), worker(1, append_failed=NOW - 29)),
        {"appends": "the log refused an append of worker 1 (pid 101) 29.0 s ago"},
        id="an append was refused",
    ),
    pytest.param(pod(worker(append_failed=NOW - 31)), {}, id="an append was refused long ago"),
    pytest.param(pod(worker(0), worker(1, DRAINING, append_failed=NOW), expected=1), {}, id="an append of a surplus worker was refused"),
    pytest.param(pod(worker()), {}, id="one healthy worker"),
    pytest.param(pod(worker(0), worker(1), worker(2)), {}, id="three healthy workers"),
    pytest.param(pod(worker(), started=False), {"startup": "not started"}, id="never started"),
    pytest.param(
        pod(worker(0), worker(1, beat=NOW - 2.6)),
        {"workers": r"worker 1 (pid 101) has not beaten for 2.6 s"},
        id="one of two is stopped or stuck",
    ),
    pytest.param(pod(worker(0), worker(1, beat=NOW - 2.4)), {}, id="four missed beats are allowed"),
    pytest.param(
        pod(worker(0), expected=2),
        {"workers": "1 of 2 workers missing, none"},
        id="one died, its slot is free",
    ),
    pytest.param(
        pod(worker(0), worker(1, BOOTING, pid=0, canary=0.0)),
        {"workers": "1 of 2 workers missing, 1 still starting"},
        id="one is booting",
    ),
    pytest.param(pod(expected=1), {"workers": "1 of 1 workers missing"}, id="an empty board"),
    pytest.param(pod(worker(0), worker(1, DRAINING)), {"drain": "worker 1 (pid 101) is draining"}, id="one drains"),
    pytest.param(
        pod(worker(0), worker(1, DRAINING, runs=3)),
        {"drain": "worker 1 (pid 101) is draining, and waits for its runs: 3"},
        id="one drains, and has runs",
    ),
    pytest.param(
        pod(worker(0, DRAINING), worker(1, DRAINING)),
        {"drain": "worker 0"},
        id="all drain: SIGTERM to the pod",
    ),
    pytest.param(pod(worker(0), worker(1), worker(2, DRAINING), expected=2), {}, id="one too many drains: TTOU"),
    pytest.param(
        pod(worker(0), worker(1), worker(2, DRAINING, beat=NOW - 9), expected=2),
        {},
        id="one too many has stopped after its drain",
    ),
    pytest.param(
        pod(worker(0), worker(1, DRAINING, beat=NOW - 9)),
        {"workers": "1 of 2 workers missing", "drain": "is draining"},
        id="one was draining and is gone",
    ),
    pytest.param(
        pod(worker(0, DRAINING), worker(1, generation=2), expected=1, generation=2),
        {},
        id="the old generation drains beside a complete new one: SIGHUP",
    ),
    pytest.param(
        pod(worker(0, DRAINING), worker(1, BOOTING, generation=2), expected=1, generation=2),
        {"workers": "1 of 1 workers missing, 1 still starting"},
        id="the new generation is not complete yet",
    ),
    pytest.param(
        pod(worker(0, beat=NOW - 99), worker(1, generation=2), expected=1, generation=2),
        {},
        id="a stuck worker of the old generation is gunicorn's to kill",
    ),
    pytest.param(
        pod(worker(0, DRAINING, generation=2), worker(1, DRAINING), expected=1, generation=2),
        {"drain": "worker 0"},
        id="SIGTERM soon after SIGHUP",
    ),
    pytest.param(
        pod(worker(0), worker(1, canary=NOW - 5.2)),
        {"canary": "worker 1 (pid 101) has delivered no event for 5.2 s"},
        id="200 but no events",
    ),
    pytest.param(pod(worker(canary=NOW - 4.9)), {}, id="a canary that is late but in bounds"),
    pytest.param(pod(worker(canary=0.0)), {"canary": "has delivered no event yet"}, id="no canary yet"),
    pytest.param(
        pod(worker(canary=NOW - 7), limits=Limits(canary_max_age=8)), {}, id="HEALTH_CANARY_MAX_AGE is obeyed"
    ),
    pytest.param(pod(worker(canary=0.0), has_hub=False), {}, id="health alone, nothing to watch"),
    pytest.param(pod(worker(0), worker(1, hub_alive=False)), {"hub": "hub of worker 1"}, id="a hub that has died"),
    pytest.param(
        pod(worker(tail_age=4.9, beat=NOW - 0.4)),
        {"log-tail": "last answered 5.3 s ago"},
        id="the log is unreachable",
    ),
]


@pytest.mark.parametrize(("snapshot", "expected"), READY)
def test_ready_speaks_for_the_whole_pod(snapshot: Snapshot, expected: dict[str, str]) -> None:
    found = failing("ready", snapshot)
    assert found.keys() == expected.keys()
    for name, text in expected.items():
        assert text in found[name]


@pytest.mark.parametrize(
    ("strict", "ok"), [pytest.param(False, True, id="degraded"), pytest.param(True, False, id="strict")]
)
def test_an_unreachable_log_makes_the_pod_unready_only_when_strict(strict: bool, ok: bool) -> None:
    report = ask("ready", TABLE, pod(worker(tail_age=60.0), limits=Limits(strict=strict)))
    assert report.ok is ok
    assert "[-]log-tail failed: the log last answered 60.3 s ago" in report.text(verbose=True)
    assert ("degraded" in report.text(verbose=True)) is not strict
    assert report.text().startswith("ok\n" if ok else "[-]log-tail failed")


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(pod(expected=3), id="workers missing"),
        pytest.param(pod(worker(tail_age=900, canary=0.0, hub_alive=False, state=DRAINING)), id="everything fails"),
    ],
)
def test_liveness_fails_only_because_of_loop_lag(snapshot: Snapshot) -> None:
    assert failing("live", snapshot) == {}


@pytest.mark.parametrize(("lag", "ok"), [(0.0, True), (2.0, True), (2.1, False)])
def test_live_fails_when_the_loop_lags(lag: float, ok: bool) -> None:
    assert ask("live", TABLE, pod(worker(), lag=lag)).ok is ok


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({"canary": 1.0}, set(), id="started"),
        pytest.param({"canary": 0.0}, {"first-canary"}, id="no canary yet"),
        pytest.param({"canary": 1.0, "log_ready": False}, {"log"}, id="the log is not open"),
        pytest.param({"canary": 0.0, "has_hub": False}, set(), id="nothing to watch"),
    ],
)
def test_started_needs_the_log_and_the_first_canary(values: dict[str, Any], expected: set[str]) -> None:
    assert failing("started", pod(worker(), **values)).keys() == expected


def test_the_answers_have_the_form_of_the_api_server() -> None:
    good = ask("ready", TABLE, pod(worker()))
    assert good.text() == "ok\n"
    assert good.text(verbose=True) == (
        "[+]startup ok\n[+]workers ok\n[+]drain ok\n[+]hub ok\n[+]canary ok\n[+]log-tail ok\n[+]appends ok\n"
        "readyz check passed\n"
    )
    bad = ask("live", TABLE, pod(worker(), lag=3.0))
    assert bad.text() == "[-]loop failed: the event loop lags by 3.0 s, the limit is 2 s\n"
    assert bad.text(verbose=True).endswith("\nhealthz check failed\n")


def _row(reason: str) -> Check:
    return Check("evil", frozenset({"ready"}), lambda _: reason, "")


def test_a_reason_can_neither_forge_a_line_nor_be_long() -> None:
    text = ask("ready", [_row("x\n[+]workers ok\r\n" + "y" * 99999)], pod(worker())).text()
    assert text.count("\n") == 1
    assert text.startswith("[-]evil failed: x [+]workers ok y")
    assert len(text) < 300


def test_a_check_that_raises_fails_and_tells_no_secret() -> None:
    def broken(_: Snapshot) -> str | None:
        raise KeyError("redis://:secret@host")

    report = ask("ready", [Check("mine", frozenset({"ready"}), broken, "")], pod())
    assert report.text() == "[-]mine failed: the check itself failed: KeyError\n"


def test_an_empty_report_is_ok() -> None:
    assert Report("started", ()).text() == "ok\n"


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    rows = [
        "| `{}` | {} | {} |".format(
            check.name,
            ", ".join(
                f"`/{name}`{' if strict' if check.degrades else ''}"
                for question, name in (("live", "healthz"), ("ready", "readyz"), ("started", "startupz"))
                if question in check.questions
            ),
            check.asks,
        )
        for check in TABLE
    ]
    text = (Path(__file__).parents[3] / "docs" / "health.md").read_text()
    assert "\n".join(rows) in text
