"""Fixtures that start the real service; see tests/support for what they hand out. And the end of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.chaos.reader import Reckoning
from tests.support.programs import require_program as _require_program
from tests.support.server import Server
from tests.support.small_disk import mounted
from tests.support.sse_client import SSEClient


class StartServer(Protocol):
    """The type of the ``start_server`` fixture."""

    def __call__(self, *args: str, **env: Any) -> Server: ...


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """``start_server(**env)`` starts a server that ends with the test; any number of them."""
    with contextlib.ExitStack() as servers:

        def start(*args: str, **env: Any) -> Server:
            return servers.enter_context(Server(*args, **env))

        yield start


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server with default settings, shared by a module: use a channel of your own in each test."""
    with Server() as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, at ``tmp_path``."""
    with mounted(tmp_path) as path:
        yield path


@pytest.fixture
def open_stream() -> Iterator[Callable[..., SSEClient]]:
    """``open_stream(server, target, **options)`` opens a stream that is closed with the test."""
    with contextlib.ExitStack() as clients:

        def connect(where: Server, target: str, **options: Any) -> SSEClient:
            return clients.enter_context(SSEClient(where.port, target, **options))

        yield connect


@pytest.fixture
def require_program() -> Callable[[str, str], str]:
    """:func:`tests.support.programs.require_program`, for tests that would rather not import it."""
    return _require_program


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For the second step of ``make test``: what does not so much as speak of the mark is not read, which would take
    longer than many of those tests."""
    if not config.getoption("markexpr").startswith("serial and ") or collection_path.suffix != ".py":
        return None
    return None if "serial" in collection_path.read_text() else True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the chaos tests of this run have counted; here, because only this file is known to the run's main process."""
    entries = [
        Reckoning(*value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"  # a test's last report, of up to three
        for name, value in report.user_properties
        if name == "chaos"
    ]
    if not entries:
        return
    terminalreporter.section("chaos: acknowledged = seen once, in order; or told")
    for entry in entries:
        terminalreporter.write_line(f"{entry}")
    total, seen = sum(one.acknowledged for one in entries), sum(one.deliveries for one in entries)
    terminalreporter.write_line(f"in all: {len(entries)} faults, {total} acknowledged, {seen} deliveries")
