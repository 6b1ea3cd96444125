"""The command's list, its slips, and what it hands on to the doctor and the probe."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sse.version import VERSION
from tests.command.run import environment, headwater
from tests.support.server import ROOT


def test_the_list_names_every_command_and_each_says_what_it_does() -> None:
    listed = headwater("--help").stdout.partition("Commands:\n")[2]
    names = re.findall(r"^  (\w+)  +\S", listed, re.MULTILINE)
    assert names == ["serve", "publish", "listen", "token", "config", "log", "doctor", "probe"]
    for name in names:
        shown = headwater(name, "--help")
        assert shown.returncode == 0 and re.match(rf"(?i)usage: headwater {name} ", shown.stdout), shown


def test_the_version_is_the_services() -> None:
    assert headwater("--version").stdout == f"headwater {VERSION}\n"


@pytest.mark.parametrize("words", [(), ("docter",), ("serve", "--prot", "1")], ids=["none", "a slip", "an option"])
def test_what_is_no_command_gets_help_and_status_2(words: tuple[str, ...]) -> None:
    done = headwater(*words)
    assert done.returncode == 2 and "Usage: headwater" in done.stderr


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        pytest.param(["--version"], "flask gevent gunicorn pydantic jwt redis requests headwater.health", id="version"),
        pytest.param(["probe", "--help"], "click typing headwater.sse", id="probe"),
        pytest.param(["--help"], "flask gevent gunicorn pydantic jwt redis requests headwater.health", id="list"),
    ],
)
def test_it_starts_quickly_because_it_imports_only_what_it_needs(words: list[str], unused: str) -> None:
    code = f"import sys, atexit\natexit.register(lambda: print(set({unused.split()}) & set(sys.modules)))\nfrom headwater.command import main\nmain({words})"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"sys = __import__('sys'); sys.path[:0] = {[str(ROOT), *sys.path]}\n{code}"], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()", done


def test_the_doctor_reads_a_manifest_from_a_pipe() -> None:
    done = headwater("doctor", stdin="apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n")
    assert (done.returncode, done.stdout.strip()) == (0, "nothing found")


def test_the_doctors_status_is_the_commands() -> None:
    assert headwater("doctor", "-f", "no such file").returncode == 2


def test_the_probe_says_when_nobody_answers() -> None:
    done = headwater("probe", "--url", "http://127.0.0.1:1/events/_canary", "--timeout", "1")
    assert done.returncode == 1 and "no connection" in done.stdout
