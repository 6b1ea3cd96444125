"""The clients of tests/clients/test_clients.py: how each is started, and what is known of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from tests.support.programs import require_program
from tests.support.server import ROOT

JS = ROOT / "tests" / "js"


class Seen(NamedTuple):
    """An event as a client reported it."""

    type: str
    data: str
    id: str | None


class Running(Protocol):
    """A client that listens."""

    def events(self) -> list[Seen]: ...
    def close(self) -> None: ...


class Process:
    """A client that is a process: one JSON line for each event."""

    def __init__(self, *command: str) -> None:
        self._seen: list[Seen] = []
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self._seen.append(Seen(told["type"], told["data"], told["id"]))

    def events(self) -> list[Seen]:
        return list(self._seen)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        # A child of it (curl) may have the pipe for a moment longer: it ends with its own broken pipe.
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


class Kind(NamedTuple):
    """One client.

    start: from a URL; by_hand: it does not reconnect, so the test's script has the loop that its users write;
    limits: case → what it is known to do otherwise, and why. Such a case is expected to fail, so that a release that
    mends it is noticed.
    """

    name: str
    start: Callable[[str], Running]
    by_hand: bool = False
    limits: dict[str, str] = {}


def python(name: str) -> Callable[[str], Running]:
    return lambda url: Process(sys.executable, "-u", "-m", "tests.clients.python_clients", name, url)


def curl(url: str) -> Running:
    require_program("curl", "curl")
    return python("curl -N")(url)


def node(name: str) -> Callable[[str], Running]:
    def start(url: str) -> Running:
        program = require_program("node", "nodejs")
        if not (JS / "node_modules" / "eventsource").is_dir():
            line = "needs the packages of tests/js: npm ci --prefix tests/js"
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(line, pytrace=False)
            pytest.skip(line)
        return Process(program, str(JS / "clients.mjs"), name, url)

    return start


class GoClient:
    """Compiled once, in a directory of the test run."""

    def __init__(self, directory: Path) -> None:
        self._binary = directory / "client"

    def start(self, url: str) -> Running:
        go = require_program("go", "golang-go")
        if not self._binary.exists():
            built = subprocess.run(
                [go, "build", "-o", str(self._binary), "."],
                cwd=ROOT / "tests" / "clients" / "go",
                # No cgo: the net package would want a C compiler.
                env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
                capture_output=True,
                text=True,
                timeout=110,
            )
            assert built.returncode == 0, built.stderr
        return Process(str(self._binary), url)


AIOHTTP_LIMITS = {
    "spaces": "it strips all leading spaces of a line of data, not just the first",
    "empty lines": "it strips all empty lines at the end of the data",
    "retry": "it waits twice the server's retry after a clean end, and raises when the connection is cut",
}

KINDS = (
    Kind("curl -N", curl, by_hand=True),
    Kind("eventsource", node("eventsource")),
    Kind(
        "@microsoft/fetch-event-source",
        node("@microsoft/fetch-event-source"),
        limits={
            "empty lines": "it loses empty lines at the beginning of the data",
            "byte order mark": "it decodes each field by itself, and takes the mark for one of the stream",
        },
    ),
    Kind("eventsource-parser", node("eventsource-parser"), by_hand=True),
    Kind(
        "requests + sseclient-py",
        python("requests + sseclient-py"),
        by_hand=True,
        limits={"retry": "it has no event for a block without data, so the opening's retry is not seen"},
    ),
    Kind("httpx-sse", python("httpx-sse"), by_hand=True),
    Kind("aiohttp-sse-client2", python("aiohttp-sse-client2"), limits=AIOHTTP_LIMITS),
)
