"""What a process prints about its settings when it starts."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.server import ROOT


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a process whose environment has no settings but ``environ``."""
    path = {"PATH": os.environ["PATH"], "LOG_FORMAT": "text"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=path | environ,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def test_an_invalid_setting_ends_the_process_with_one_line_and_status_2() -> None:
    ended = run("import settings; settings.load()", PORT="70000")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "headwater: PORT='70000' cannot be used: it must be a whole number from 0 to 65535\n"


def test_each_invalid_setting_has_a_line() -> None:
    ended = run(
        "import settings; settings.load()",
        SSE_LOG="redis://:hunter2@h:x/0",
        SSE_PUBLISH_KEY="hunter2",
        SSE_HEARTBEAT="soon\nheadwater: forged",
        HOST="-",
    )
    assert ended.returncode == 2 and "hunter2" not in ended.stderr
    names = [line.removeprefix("headwater: ").partition("=")[0] for line in ended.stderr.splitlines()]
    assert names == ["HOST", "SSE_LOG", "SSE_HEARTBEAT", "SSE_PUBLISH_KEY"]


def test_a_typo_is_reported_once_and_the_start_goes_on() -> None:
    ended = run("import settings; settings.load(); print(settings.load().port)", SSE_HARTBEAT="5", PORT="9")
    assert (ended.returncode, ended.stdout) == (0, "9\n")
    assert ended.stderr.count("SSE_HARTBEAT") == 1 and len(ended.stderr.splitlines()) == 1


def test_services_named_sse_and_health_change_no_ports_and_print_nothing() -> None:
    ended = run(
        "import settings; s = settings.load(); print(s.port, s.health_port)",
        HEALTH_PORT="tcp://10.0.0.7:8081",
        HEALTH_SERVICE_HOST="10.0.0.7",
        SSE_PORT="tcp://10.0.0.8:80",
        HEADWATER_PORT="tcp://10.0.0.9:80",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "8080 8081\n", "")


def test_settings_load_neither_werkzeug_nor_the_libraries_for_tokens() -> None:
    ended = run(
        "import sys, sse.settings\n"
        "print(sorted({'cryptography', 'flask', 'jwt', 'werkzeug'} & set(sys.modules)))"
    )
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), "gunicorn's master imports the settings before gevent patches"
