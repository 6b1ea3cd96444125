"""README.md, typed from top to bottom by somebody new: each command as it stands there, on a fresh
log. Only the ports are other ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ROOT, Server
from tests.support.terminal import Terminal, blocks, section

README = (ROOT / "README.md").read_text()


#: Documents with commands for a shell.
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in DOCUMENTS])
def test_each_command_can_be_pasted_into_any_shell(path: Path) -> None:
    """zsh, macOS's shell, reads a comment after a command as arguments, and a bare `?` or `*` as a file name."""
    pattern = r"^    ((?:curl|kubectl|make|docker|kind|openssl|printf|\.venv/\S+|[A-Z_]+=\S+) .*)$"
    for command in re.findall(pattern, path.read_text(), re.MULTILINE):
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", command)
        assert not re.search(r"[?*]|\s#", bare), command


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Terminal]]:
    with Server() as server:
        yield server, Terminal(server, tmp_path_factory.mktemp("clone"))


def test_the_first_commands_show_what_the_readme_says(fresh: tuple[Server, Terminal]) -> None:
    _, terminal = fresh
    (clone, commands, shown) = blocks(section(README, "Start"))
    assert clone.splitlines()[1] == "make run"
    listen, publish = commands.splitlines()
    answer = json.loads(terminal.type(f"({listen}) > first & sleep 1; {publish}; wait"))
    assert answer["channel"] == "orders"

    opening, event = (re.sub("[0-9]{13}", "N", block) for block in
                      (terminal.folder / "first").read_text().strip().split("\n\n"))
    assert event == re.sub("[0-9]{13}", "N", shown)
    assert "event: heartbeat" in opening


def test_the_tour_works_on_a_new_log(fresh: tuple[Server, Terminal]) -> None:
    """Catches samples that show no earlier events, and unexplained resets."""
    _, terminal = fresh
    tour = section(README, "A tour")
    commands = [block for block in blocks(tour) if re.match(r"(curl|printf)\b", block)]
    resume, history, batch, filtered, once = commands
    (probe,) = re.findall(r"`(curl [^`]*readyz[^`]*)`", tour)
    (reset, event) = terminal.stream(resume)
    assert (reset.event, event.data) == ("stream-reset", '{"item":1}')
    assert json.loads(reset.data or "")["reason"] == "before-log" and "`before-log`" in tour
    earliest, moment = history.splitlines()
    assert [one.data for one in terminal.stream(earliest)] == ['{"item":1}']
    assert [one.data for one in terminal.stream(moment)][-1] == '{"item":1}'
    assert len(json.loads(terminal.type(batch))["ids"]) == 3
    assert [(one.event, one.data) for one in terminal.stream(filtered)] == [
        ("created", '{"item":1}'),
        ("created", '{"item":2}'),
        ("alert", "item 2 is low"),
    ]
    assert terminal.type(once) == terminal.type(once)
    assert "readyz check passed" in terminal.type(probe)


def test_the_section_on_publishing_from_other_machines_works(tmp_path: Path) -> None:
    start, publish = blocks(section(README, "Publishing from other machines"))
    make_key, run = start.splitlines()
    variables, command = run.removesuffix(" make run").split(), run.split()[-2:]
    assert command == ["make", "run"]
    env = dict(variable.split("=", 1) for variable in variables)
    server = Server(**{**env, "SSE_PUBLISH_KEY_FILE": str(tmp_path / env["SSE_PUBLISH_KEY_FILE"])})
    terminal = Terminal(server, tmp_path)
    terminal.type(make_key)
    with server:
        assert json.loads(terminal.type(publish))["channel"] == "greetings"
        without = re.sub(r'-H "Authorization[^"]*"', "", publish)
        assert json.loads(terminal.type(without.replace("$(cat var/publish.key)", "")))["status"] == 401
