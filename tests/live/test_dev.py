"""``make dev`` and the dev container, where work on the code begins."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from http.client import HTTPException
from pathlib import Path

from sse.settings import Settings
from tests.support.server import ROOT, Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

VENV = Path(sys.executable).parents[1]
CONTAINER = ROOT / ".devcontainer"
# As in a terminal. What a shell starts in the background (`make test &`) ignores SIGINT, and so would all that it
# starts.
HEEDS_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)
CODE = ("sse", "health", "app.py", "wsgi.py", "settings.py", "gunicorn.conf.py", "Makefile")


def test_a_changed_file_is_served_within_seconds_and_open_streams_resume(tmp_path: Path) -> None:
    for name in CODE:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    # What `make` would install is there.
    make = ("make", "--silent", "-o", f"{VENV}/.dev", f"VENV={VENV}", "dev")
    server = Server(command=(sys.executable, "-c", HEEDS_CTRL_C, *make), cwd=tmp_path)

    def title() -> str:
        try:
            return str(server.request("GET", "/openapi.json").json()["info"]["title"])
        except (OSError, HTTPException, ValueError):
            return ""  # between two lives

    try:
        server.start(ready=False)
        eventually(lambda: title() == "Headwater", 30, server.log_tail, interval=0.1)
        with SSEClient(server.port, "/events/a") as client:
            client.next_event()
            seen = server.publish("a", "before")
            assert client.next_message().id == seen
            described = tmp_path / "sse" / "web" / "openapi.py"
            described.write_text(described.read_text().replace('"title": "Headwater"', '"title": "Changed"'))
            began = time.monotonic()
            blocks = client.read_to_end(20)
            assert client.ending is Ending.TERMINATED and blocks[-1].retry is not None
        eventually(lambda: title() == "Changed", 30, server.log_tail, interval=0.1)
        assert time.monotonic() - began < 30
        missed = server.publish("a", "after")
        with SSEClient(server.port, "/events/a", last_event_id=seen) as again:
            assert again.next_message().id == missed
        # Ctrl-C goes to all of the group, and ends all of it.
        os.killpg(server.pid, signal.SIGINT)
        server.wait(20)
        assert "Traceback" not in server.log_text(), server.log_tail()
    finally:
        server.close()


def test_the_dev_container_sets_itself_up_and_shows_the_services_ports() -> None:
    container = json.loads((CONTAINER / "devcontainer.json").read_text())
    defaults = Settings.from_mapping({})
    assert container["forwardPorts"] == [defaults.port, defaults.health_port]
    assert sorted(container["portsAttributes"]) == sorted(str(port) for port in container["forwardPorts"])
    assert container["postCreateCommand"] == "make setup"
    assert (CONTAINER / container["build"]["dockerfile"]).is_file() and "image" not in container
    assert f" {container['remoteUser']}\n" in (CONTAINER / "Dockerfile").read_text()


def test_the_dev_container_has_what_ci_installs_and_the_images_python() -> None:
    ours, image = (CONTAINER / "Dockerfile").read_text(), (ROOT / "Dockerfile").read_text()
    base = re.compile(r"^ARG BASE=(python:[0-9.]+)-(?:slim-)?([a-z]+)$", re.MULTILINE)
    assert base.findall(ours) == base.findall(image) != []
    ci = (ROOT / ".ci" / "run").read_text()
    wanted = " ".join(re.findall(r"packages\+?=\(([^)]+)\)", ci)).split()
    (installed,) = re.findall(r"--no-install-recommends \\\n(.+?)&&", ours, re.DOTALL)
    assert sorted(installed.replace("\\", " ").split()) == sorted(wanted)
