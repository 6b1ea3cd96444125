"""Debian's Chromium under Playwright: a page's own errors fail its test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.programs import require_program
from tests.support.server import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Keeps the browser from using a network that it does not have.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENSHOTS = ROOT / "build" / "screenshots"
# Milliseconds to wait for a page, on a machine with two cores that also runs other tests.
PATIENCE = 15_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser with a fresh profile; skip the test in one line without one."""
    path = require_program("chromium", "chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make setup")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Problems(list[str]):
    """A page's errors, in words. ``allowed``: parts of those that a test provokes."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[str] = []

    def note(self, text: str) -> None:
        self.append(text)

    def left(self) -> list[str]:
        return [text for text in self if not any(part in text for part in self.allowed)]


@contextmanager
def page_of(browser: Browser, **options: Any) -> Iterator[tuple[Page, Problems]]:
    """Open a page in its own context; when it is closed, it must have had no error, warning or CSP violation."""
    context = browser.new_context(**{"viewport": {"width": 1320, "height": 980}, **options})
    context.set_default_timeout(PATIENCE)
    # Violations are also events, and the policy's own word for what was blocked.
    context.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective, e.blockedURI))"
    )
    page = context.new_page()
    problems = Problems()
    page.on("pageerror", lambda error: problems.note(f"error: {error}"))
    page.on("console", lambda said: said.type in ("error", "warning") and problems.note(f"{said.type}: {said.text}"))
    try:
        yield page, problems
        assert problems.left() == [], problems.left()
    finally:
        context.close()


def screenshot(page: Page, name: str) -> None:
    """Save a picture of the whole page in build/screenshots, for CI's artefacts."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)
