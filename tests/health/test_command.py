"""The command ``headwater``, as a wheel installs it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What the installed script does with the entry of pyproject.toml.
SCRIPT = "import sys; from importlib import import_module; module, name = sys.argv.pop(1).split(':'); sys.exit(getattr(import_module(module), name)())"
ENTRY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["headwater"]


def headwater(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, ENTRY, *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, cwd=ROOT)


def test_the_entry_is_there() -> None:
    module, _, name = ENTRY.partition(":")
    assert callable(getattr(import_module(module), name))


def test_the_doctor_reads_a_manifest_from_a_pipe() -> None:
    done = headwater("doctor", stdin="apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n")
    assert (done.returncode, done.stdout.strip()) == (0, "nothing found")


def test_the_doctor_s_status_is_the_command_s() -> None:
    assert headwater("doctor", "-f", "no such file").returncode == 2


def test_the_probe_says_when_nobody_answers() -> None:
    done = headwater("probe", "--url", "http://127.0.0.1:1/events/_canary", "--timeout", "1")
    assert done.returncode == 1


@pytest.mark.parametrize("words", [(), ("docter",)], ids=["none", "a slip"])
def test_what_is_no_command_gets_the_list_of_commands(words: tuple[str, ...]) -> None:
    done = headwater(*words)
    assert done.returncode == 2 and "headwater doctor" in done.stderr
