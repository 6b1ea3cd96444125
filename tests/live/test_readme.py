"""README.md and docs/security.md, typed from top to bottom by somebody new: each command as it stands there, on a fresh
log. Only the ports are other ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.programs import require_program
from tests.support.server import ROOT, Server
from tests.support.sse_parser import EventParser, StreamEvent

README = (ROOT / "README.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()


def blocks(text: str) -> list[str]:
    """Return the indented blocks, in order."""
    return [dedent(block).strip() for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE)]


#: Documents with commands for a shell.
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in DOCUMENTS])
def test_each_command_can_be_pasted_into_any_shell(path: Path) -> None:
    """zsh, macOS's shell, reads a comment after a command as arguments, and a bare `?` or `*` as a file name."""
    pattern = r"^    ((?:curl|kubectl|make|docker|kind|openssl|printf|\.venv/\S+|[A-Z_]+=\S+) .*)$"
    for command in re.findall(pattern, path.read_text(), re.MULTILINE):
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", command)
        assert not re.search(r"[?*]|\s#", bare), command


def section(text: str, title: str) -> str:
    found = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, title
    return found


class Terminal:
    """A shell in a clone's folder. A command that does not end is interrupted after some seconds, as by Ctrl-C."""

    def __init__(self, server: Server, folder: Path, **env: str) -> None:
        self._server = server
        self.folder = folder
        tools = folder / "bin"
        tools.mkdir(exist_ok=True)
        curl = tools / "curl"
        curl.write_text(f'#!/bin/sh\nexec {require_program("curl", "curl")} -sS --max-time 2 "$@"\n')
        curl.chmod(0o755)
        venv = folder / ".venv"
        if not venv.exists():
            venv.symlink_to(ROOT / ".venv")
        self._env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **env}

    def type(self, command: str) -> str:
        """Run a command; return its output."""
        command = command.replace("localhost:8080", f"localhost:{self._server.port}")
        command = command.replace("localhost:8081", f"localhost:{self._server.health_port}")
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self._env,
            capture_output=True, text=True, timeout=30, check=False,
        )
        complaints = [line for line in done.stderr.splitlines() if line.startswith("curl:") and "timed out" not in line]
        assert not complaints, (command, complaints)
        return done.stdout

    def stream(self, command: str) -> list[StreamEvent]:
        """Return the output of a ``curl -N``, without its opening and heartbeats."""
        shown = EventParser().feed(self.type(command).encode())
        return [block for block in shown if block.event != "heartbeat" and block.data is not None]


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


def test_the_section_on_tokens_works(tmp_path: Path) -> None:
    """The claim, minting, and each way to show a token."""
    part = section(SECURITY, "Tokens")
    example = json.loads(re.findall(r"```json\n(.*?)```", part, re.DOTALL)[0])
    assert set(example) == {"exp", "sub", "sse"} and set(example["sse"]) == {"publish", "subscribe"}
    start, use = blocks(part)
    export, run = start.splitlines()
    assert run == "make run"
    mint, header, *reading = use.splitlines()
    server = Server()
    key = Terminal(server, tmp_path).type(f"{export}; echo $SSE_JWT_KEY").strip()
    server.env["SSE_JWT_KEY"] = key
    with server:
        # The command's own file names are those of a clone, and so is the folder that it runs in.
        minting = Terminal(server, tmp_path, SSE_JWT_KEY=key)
        token = minting.type(f"cd {ROOT}; {mint}; echo $TOKEN").strip()
        terminal = Terminal(server, tmp_path, TOKEN=token)
        assert json.loads(terminal.type(header))["channel"] == "orders"
        assert len(reading) == 2
        for way in reading:
            assert [one.data for one in terminal.stream(way)] == ["hello"], way
        assert json.loads(terminal.type(header.replace("orders", "other")))["status"] == 403


def test_the_schemes_and_the_claim_are_those_of_the_code() -> None:
    from sse.auth.bearer import SCHEMES
    from sse.auth.policy import MAX_PATTERNS
    from sse.auth.tokens import CLAIM, LEEWAY

    part = section(SECURITY, "Tokens")
    ways = re.findall(r"^- \*\*(.+?)\*\*", part, re.MULTILINE)
    assert len(ways) == len(SCHEMES)
    for scheme in SCHEMES:
        assert [way for way in ways if (scheme.header or scheme.openapi["name"]) in way], scheme.name
    assert f"- `{CLAIM}`:" in part
    assert f"at most {MAX_PATTERNS} patterns" in part and f"{LEEWAY} s ahead" in part
