"""The clients of tests/clients: how each runs, and its known faults."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from tests.clients import pages
from tests.clients.proxy import Proxy
from tests.support.browser import chromium, page_of
from tests.support.firefox import firefox
from tests.support.programs import require_program
from tests.support.server import ROOT

JS = ROOT / "tests" / "js"


class Seen(NamedTuple):
    """An event as a client reported it; without its id if the client does not give it."""

    type: str
    data: str
    id: str | None


class Running(Protocol):
    """Clients that listen."""

    def events(self, name: str) -> list[Seen]: ...
    def close(self) -> None: ...


class Kind(NamedTuple):
    """One client.

    limits: case → what it does differently, and why. Such a case is expected to fail, so that a release that repairs it
    is noticed. page: makes the page of a client in a browser from the stream's URL. dress: makes the data that it shows
    as this text; such a client is sent nothing else.
    """

    name: str
    limits: Mapping[str, str] = {}
    page: Callable[[str], str] | None = None
    dress: Callable[[str], str] | None = None


# ── clients in processes ──────────────────────────────────────────────────────────────────────────────────────


class Process:
    """Clients that share a process: one JSON line for each event."""

    def __init__(self, *command: str) -> None:
        self._seen: defaultdict[str, list[Seen]] = defaultdict(list)
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
            self._seen[told["client"]].append(Seen(told["type"], told["data"], told["id"]))

    def events(self, name: str) -> list[Seen]:
        return list(self._seen[name])

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        # Its child (curl) may hold the pipe a moment longer, until its own pipe breaks.
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


def need_node_modules() -> None:
    """Skip the test in one line without the packages of tests/js, or fail where ``CI=true``."""
    if not (JS / "node_modules" / "eventsource-4").is_dir():
        line = "needs the packages of tests/js: npm ci --prefix tests/js"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)


def _arguments(proxies: Mapping[str, Proxy]) -> list[str]:
    return [argument for name, proxy in proxies.items() for argument in (name, proxy.url)]


# ── the programs ──────────────────────────────────────────────────────────────────────────────────────────────


class Program:
    """Runs clients; stays open during its tests if it has something to keep (a browser)."""

    kinds: tuple[Kind, ...] = ()

    def need(self) -> None:
        """Skip the test if something is missing."""

    def start(self, proxies: Mapping[str, Proxy]) -> Running:
        """Let the clients of these names connect, each to its own proxy."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what is kept."""


AIOHTTP_LIMITS = {
    "spaces": "it strips all leading spaces of a line of data, not just the first",
    "empty lines": "it strips all empty lines at the end of the data",
    "retry": "it waits twice the server's retry after a clean end, and raises when the connection is cut",
}


class Python(Program):
    kinds = (
        Kind("curl -N"),
        Kind("requests + sseclient-py"),
        Kind("httpx-sse"),
        Kind("openai's decoder"),
        Kind(
            "launchdarkly-eventsource (Python)",
            {"retry": "it ignores the server's retry"},
        ),
        Kind(
            "requests-sse",
            {
                "spaces": "it strips all leading spaces of a line of data, not just the first",
                "empty lines": "it strips all empty lines at the end of the data",
                "retry": "it waits twice the server's retry",
            },
        ),
        Kind("aiohttp-sse-client2", AIOHTTP_LIMITS),
    )

    def need(self) -> None:
        require_program("curl", "curl")

    def start(self, proxies: Mapping[str, Proxy]) -> Running:
        return Process(sys.executable, "-u", "-m", "tests.clients.python_clients", *_arguments(proxies))


class Node(Program):
    kinds = (
        Kind("eventsource 3"),
        Kind("eventsource 4"),
        Kind("launchdarkly-eventsource"),
        Kind("event-source-polyfill"),
        Kind(
            "@microsoft/fetch-event-source",
            {
                "empty lines": "it loses empty lines at the beginning of the data",
                "byte order mark": "it decodes each field by itself, and takes the mark for one of the stream",
            },
        ),
        Kind("eventsource-parser"),
    )

    def need(self) -> None:
        require_program("node", "nodejs")
        need_node_modules()

    def start(self, proxies: Mapping[str, Proxy]) -> Running:
        return Process(require_program("node", "nodejs"), str(JS / "clients.mjs"), *_arguments(proxies))


class Go(Program):
    """Compiled once, in a directory of the test run."""

    kinds = (Kind("Go, net/http"),)

    def __init__(self, directory: Path) -> None:
        self._binary = directory / "client"

    def need(self) -> None:
        go = require_program("go", "golang-go")
        if self._binary.exists():
            return
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

    def start(self, proxies: Mapping[str, Proxy]) -> Running:
        return Process(str(self._binary), *_arguments(proxies))


class Pages:
    """Clients in pages of a browser; a page is anything with Playwright's ``goto`` and ``evaluate``."""

    def __init__(self, opened: Mapping[str, Any]) -> None:
        self._pages = opened
        self._seen: dict[str, list[Seen]] = {name: [] for name in opened}

    def events(self, name: str) -> list[Seen]:
        seen = self._seen[name]
        seen += [Seen(*event) for event in self._pages[name].evaluate("window.seen.splice(0)")]
        return list(seen)

    def close(self) -> None:
        for page in self._pages.values():
            page.goto("about:blank")


class Chromium(Program):
    kinds = (
        Kind("Chromium's EventSource", page=pages.event_source),
        Kind("htmx", page=pages.htmx, dress=str),
        Kind(
            "Turbo",
            {"gap": "it acts on events of the type message only"},
            page=pages.turbo,
            dress=pages.turbo_stream,
        ),
    )

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._pages: dict[str, Any] = {}

    def need(self) -> None:
        need_node_modules()
        if not self._pages:
            browser = self._stack.enter_context(chromium())
            for kind in self.kinds:
                page, problems = self._stack.enter_context(page_of(browser))
                # These tests cut and refuse connections, which a page's console reports (htmx: as an Event).
                problems.allowed = ["Failed to load resource", "net::ERR_", "[object Event]"]
                self._pages[kind.name] = page

    def start(self, proxies: Mapping[str, Proxy]) -> Running:
        opened = {name: self._pages[name] for name in proxies}
        for name, proxy in proxies.items():
            opened[name].goto(proxy.page_url)
        return Pages(opened)

    def close(self) -> None:
        self._stack.close()


class Firefox(Program):
    kinds = (
        Kind("Firefox's EventSource", {"NUL": "it leaves NUL out of the data"}, page=pages.event_source),
    )

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._page: Any = None

    def need(self) -> None:
        if self._page is None:
            self._page = self._stack.enter_context(firefox())

    def start(self, proxies: Mapping[str, Proxy]) -> Running:
        ((name, proxy),) = proxies.items()
        self._page.goto(proxy.page_url)
        return Pages({name: self._page})

    def close(self) -> None:
        self._stack.close()


KINDS = {kind.name: kind for program in (Python, Node, Go, Chromium, Firefox) for kind in program.kinds}
