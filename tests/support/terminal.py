"""The commands of a document, typed as they stand there into a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from tests.support.programs import require_program
from tests.support.server import ROOT, Server
from tests.support.sse_parser import EventParser, StreamEvent


def blocks(text: str) -> list[str]:
    """Return the indented blocks, in order."""
    return [dedent(block).strip() for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE)]


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
        command = tools / "headwater"
        command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m headwater "$@"\n')
        command.chmod(0o755)
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
