"""One browser of each kind and one server for this package. The server's ``retry:`` is short, so that tests can watch reconnections."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.console.console import Console
from tests.console.event_source import Listen, listen_in
from tests.support.browser import Problems, chromium, page_of
from tests.support.firefox import FirefoxPage, firefox
from tests.support.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def running_firefox() -> Iterator[FirefoxPage]:
    with firefox() as page:
        yield page


@pytest.fixture(scope="package")
def served() -> Iterator[Server]:
    """Shared by the package, so each test uses its own channel."""
    with Server(SSE_RETRY=1200, SSE_HEARTBEAT=0.5) as running:
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., tuple[Page, Problems]]]:
    """``open_page(**options)`` opens a page in a context with these options; the test fails if it had an error."""
    with contextlib.ExitStack() as pages:

        def opened(**options: Any) -> tuple[Page, Problems]:
            return pages.enter_context(page_of(browser, **options))

        yield opened


@pytest.fixture
def console(open_page: Callable[..., tuple[Page, Problems]], served: Server) -> Callable[..., Console]:
    """``console(query="", where=served, **options)`` opens the console in a page of its own."""

    def opened(query: str = "", where: Server | None = None, **options: Any) -> Console:
        page, problems = open_page(**options)
        page.goto((where or served).url("/" + query))
        return Console(page, problems)

    return opened


@pytest.fixture(params=["Chromium", "Firefox"])
def listen(request: pytest.FixtureRequest) -> Iterator[Listen]:
    """``listen(server, target)`` opens a page with an EventSource; see ``listen_in``."""
    if request.param == "Firefox":
        page = request.getfixturevalue("running_firefox")
    else:
        page, problems = request.getfixturevalue("open_page")()
        problems.allowed = ["Failed to load resource", "net::ERR_"]
    yield lambda server, target: listen_in(page, server, target)
    page.goto("about:blank")  # Firefox's page is the next test's, too
