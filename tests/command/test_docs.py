"""docs/command.md: every command on it runs, in the order of the page, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

from tests.command.run import environment, headwater
from tests.support.server import ROOT, Server
from tests.support.wait import eventually

PAGE = (ROOT / "docs" / "command.md").read_text()
COMMANDS = [line for block in re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE) for line in dedent(block).splitlines()]

MYAPP = """
import flask
from headwater import SSE, Health

def create_app():
    app = flask.Flask(__name__)
    SSE(app)
    Health(app)
    return app

app = create_app()
"""

#: These go on until somebody ends them.
ENDLESS = ("tail -f", "headwater listen 'orders:*'", "headwater listen orders --url")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the page's commands are typed: with an app, a key, a log file, and the programs on the path."""
    files = {
        "myapp.py": MYAPP,
        "shop.log": "one\ntwo\n",
        "publish.key": "k" * 32,
        "manifest.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n",
        "bin/headwater": f'#!/bin/sh\nexec {sys.executable} -m headwater "$@"\n',
        "bin/gunicorn": f'#!/bin/sh\nexec {sys.executable} -m gunicorn "$@"\n',
        # A cluster with one pod, which is this machine.
        "bin/kubectl": '#!/bin/sh\ncase $1 in get) cat manifest.yaml;; exec) shift 3; exec "$@";; esac\n',
    }
    (tmp_path / "bin").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def is_ready(server: Server) -> bool:
    return server.request("GET", "/readyz", port=server.health_port).status == 200


def test_every_command_of_the_page_runs(folder: Path) -> None:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    quick: dict[str, str | float | None] = {"PATH": path, "PYTHONPATH": str(ROOT), "SSE_DRAIN_DELAY": 0, "SSE_DRAIN_WINDOW": 0}
    ran = []
    with Server() as service:
        env = environment(PATH=path, PORT=str(service.port))
        for command in COMMANDS:
            kind = next((kind for kind in ENDLESS if command.startswith(kind)), None)
            if command.startswith("pip install"):
                continue  # tests/package does it
            if command.startswith(("headwater serve", "gunicorn")):
                with Server(command=("sh", "-c", f"exec {command}"), cwd=folder, SSE_LOG=None, **quick) as own:
                    eventually(partial(is_ready, own), 20, own.log_tail)
            elif command.startswith("export "):
                done = subprocess.run(["sh", "-c", f"{command}; env"], env=env, capture_output=True, text=True, timeout=60)
                env["SSE_JWT_KEY"] = dict(line.partition("=")[::2] for line in done.stdout.splitlines())["SSE_JWT_KEY"]
            else:
                line = command.replace("http://localhost:8080", service.url(""))
                limited = ["timeout", "2" if kind else "60", "sh", "-c", line]
                done = subprocess.run(limited, env=env, cwd=folder, capture_output=True, text=True, timeout=90)
                assert done.returncode == (124 if kind else 0), (command, done)
                assert not kind or "Error" not in done.stderr, (command, done)
            ran.append(command)
    assert len(ran) > 15


def test_the_page_names_every_command_and_option() -> None:
    names = [(name,) for name in listed()] + [("log", name) for name in listed("log")]
    assert all(" ".join(("headwater", *name)) in PAGE for name in names)
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) - {"--workers"}
    assert options <= {option for name in names for option in re.findall(r"--[a-z][a-z-]+", headwater(*name, "--help").stdout)}


def listed(*group: str) -> list[str]:
    return re.findall(r"^  (\w+)  +\S", headwater(*group, "--help").stdout.partition("Commands:\n")[2], re.MULTILINE)
