"""kubectl's output, and which failure it looks like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from health.doctor.cli import main
from health.doctor.symptoms import SYMPTOMS

GET = 'Get "http://10.244.0.7:8000/healthz"'

TEXTS = [
    pytest.param(f"  Warning  Unhealthy  Liveness probe failed: {GET}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", {"HW801"}, id="no head"),
    pytest.param("Readiness probe errored and resulted in failure state: context deadline exceeded (Client.Timeout or context cancellation while reading body)", {"HW802"}, id="no end"),
    pytest.param(f"Liveness probe failed: {GET}: dial tcp 10.244.0.7:8000: connect: connection refused", {"HW803"}, id="refused"),
    pytest.param("Container web failed startup probe, will be restarted", {"HW803"}, id="startup"),
    pytest.param("Liveness probe failed: HTTP probe failed with statuscode: 500", {"HW804"}, id="a dependency"),
    pytest.param("Readiness probe failed: HTTP probe failed with statuscode: 404", {"HW804"}, id="no route"),
    pytest.param("    Last State:  Terminated\n      Reason:  Error\n      Exit Code:    137", {"HW805"}, id="killed"),
    pytest.param("lastState:\n  terminated:\n    exitCode: 137\n    reason: OOMKilled", {"HW806"}, id="memory, as YAML"),
    pytest.param('rpc error: OCI runtime exec failed: exec failed: unable to start container process: exec: "curl": executable file not found in $PATH: unknown', {"HW807"}, id="no curl"),
    pytest.param("Warning  FailedPreStopHook  PreStopHook failed", {"HW807"}, id="the hook"),
    pytest.param("/bin/sh: 1: cannot create /dev/tcp/127.0.0.1/8000: Directory nonexistent", {"HW807"}, id="dev tcp"),
    pytest.param("[2026-03-01 10:00:00 +0000] [1] [CRITICAL] WORKER TIMEOUT (pid:7)", {"HW808"}, id="gunicorn"),
    pytest.param(f"Readiness probe failed: {GET}: EOF", {"HW809"}, id="EOF"),
    pytest.param("upstream timed out (110: Connection timed out) while reading upstream, client: 10.0.0.1", {"HW810"}, id="nginx"),
    pytest.param("Warning  BackOff  Back-off restarting failed container web in pod shop-0", {"HW811"}, id="back-off"),
    pytest.param("Cannot evict pod as it would violate the pod's disruption budget.", {"HW812"}, id="drain"),
    pytest.param("Normal  Scheduled  Successfully assigned default/shop-0\nNormal  Pulled  Container image already present", set(), id="nothing"),
    pytest.param("Readiness probe failed: HTTP probe failed with statuscode: 503\nExit Code:  0", {"HW804"}, id="not ready"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "rules"), TEXTS)
def test_a_text_looks_like_its_failure(text: str, rules: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_text(text)
    main(["--symptoms", str(path), "--format", "json"])
    report = json.loads(capsys.readouterr().out)
    assert {finding["id"] for finding in report["findings"]} == rules
    assert all(finding["repair"].startswith("next: ") for finding in report["findings"])
    assert bool(report["notes"]) == (not rules), "who finds nothing says what to give it"


def test_a_kill_by_liveness_is_its_consequence_and_comes_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_text(f"Exit Code: 137\nLiveness probe failed: {GET}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)\n")
    assert main(["--symptoms", str(path), "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(finding["id"], finding["severity"]) for finding in report["findings"]] == [("HW801", "breaks"), ("HW805", "note")]


def test_every_symptom_has_a_text() -> None:
    assert {rule for case in TEXTS for rule in case.values[1]} == {rule.id for rule in SYMPTOMS}


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"\0\1", "binary")])
def test_input_that_is_no_text_gets_one_line(content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    assert main(["--symptoms", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
