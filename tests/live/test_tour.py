"""The README's tour, with the real curl, against the production command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import require_program
from tests.support.server import ROOT, Server
from tests.support.sse_parser import EventParser, StreamEvent
from tests.support.wait import eventually

PRODUCTION = (f"{Path(sys.executable).parent}/gunicorn", "-c", "gunicorn.conf.py", "wsgi:app")


class Curl:
    """``curl -N`` in the background; :attr:`blocks` is what it has printed so far."""

    def __init__(self, curl: str, output: Path, *args: str) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen([curl, "-sSN", *args], stdout=file, stderr=subprocess.STDOUT)

    @property
    def blocks(self) -> list[StreamEvent]:
        return EventParser().feed(self._output.read_bytes())

    @property
    def data(self) -> list[str]:
        return [block.data or "" for block in self.blocks if not block.is_control]

    def wait_for(self, data: list[str]) -> None:
        eventually(lambda: self.data == data, 10, lambda: f"{data} expected: {self._output.read_text()}")

    def wait_opening(self) -> None:
        eventually(lambda: self.blocks, 10, "no opening")

    def interrupt(self) -> str:
        """Press Ctrl-C; return the last id seen, as a user reads it off the screen."""
        self._process.terminate()
        self._process.wait(5)
        return [block.id for block in self.blocks if block.id][-1] or ""


@pytest.fixture
def curl(tmp_path: Path) -> Iterator[Callable[..., Curl]]:
    program = require_program("curl", "curl")
    with ExitStack() as stack:
        started = 0

        def run(*args: str) -> Curl:
            nonlocal started
            started += 1
            running = Curl(program, tmp_path / f"curl-{started}", *args)
            stack.callback(running.interrupt)
            return running

        yield run


def post(server: Server, path: str, data: str, *args: str) -> dict[str, Any]:
    """``curl -d DATA URL``."""
    command = [require_program("curl", "curl"), "-sS", "-d", data, *args, server.url(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_tour(curl: Callable[..., Curl]) -> None:
    server = Server(command=PRODUCTION, cwd=ROOT, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.2)
    with server:
        # Two terminals: the event appears at once.
        first = curl(server.url("/events/orders"))
        first.wait_opening()
        answer = post(server, "/events/orders?event=created", '{"item":1}')
        first.wait_for(['{"item":1}'])
        assert first.blocks[-1] == StreamEvent(answer["id"], "created", '{"item":1}', None)
        assert answer["channel"] == "orders"
        # Ctrl-C, three more, back again: exactly those three, then live.
        last = first.interrupt()
        assert last == answer["id"]
        for item in (2, 3, 4):
            post(server, "/events/orders", str(item))
        second = curl("-H", f"Last-Event-ID: {last}", server.url("/events/orders"))
        second.wait_for(["2", "3", "4"])
        post(server, "/events/orders", "5")
        second.wait_for(["2", "3", "4", "5"])
        # Stop the server, start it, resume again: still exactly what was missed.
        last = second.interrupt()
        post(server, "/events/orders", "6")
        server.restart()
        third = curl("-H", f"Last-Event-ID: {last}", server.url("/events/orders"))
        third.wait_for(["6"])
        post(server, "/events/orders", "7")
        third.wait_for(["6", "7"])
        # The same without a header, as a link can be.
        fourth = curl(server.url(f"/events/orders?since={last}"))
        fourth.wait_for(["6", "7"])
        fifth = curl(server.url("/events/orders?since=earliest"))
        fifth.wait_for(['{"item":1}', "2", "3", "4", "5", "6", "7"])


def test_data_that_curl_sends_is_stored_byte_for_byte(curl: Callable[..., Curl], tmp_path: Path) -> None:
    """The body is the data, although ``curl -d`` claims a form and ``--data-binary @file`` has line ends."""
    body = tmp_path / "body"
    body.write_bytes("a=1&b=%20 \u2028é\n\nlast".encode())
    with Server() as server:
        stream = curl(server.url("/events/raw"))
        stream.wait_opening()
        post(server, "/events/raw", "a=1&b=%20")
        post(server, "/events/raw", f"@{body}", "--data-binary", f"@{body}")
        eventually(lambda: len(stream.data) == 2, 10)
        assert stream.data[0] == "a=1&b=%20"
        assert stream.data[1].endswith("a=1&b=%20 \u2028é\n\nlast")
