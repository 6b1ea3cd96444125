"""A page with an EventSource of the browser's own, as tests see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.browser import PATIENCE
from tests.support.server import Server
from tests.support.wait import eventually

#: Opens a page with an EventSource: anything with Playwright's ``goto`` and ``evaluate``.
Listen = Callable[[Server, str], Any]


def listen_in(page: Any, server: Server, target: str) -> Any:
    """Open an EventSource in a page of the server's own origin: ``seen`` has its events, ``states`` its ups and downs."""
    page.goto(server.url("/healthz"))
    page.evaluate(
        """(target) => {
            window.seen = [];
            window.states = [];
            window.source = new EventSource(target);
            for (const type of ["message", "stream-reset", "stream-end"])
                source.addEventListener(type, (e) => seen.push([e.type, e.data, e.lastEventId]));
            source.onopen = () => states.push("open");
            source.onerror = () => states.push(source.readyState === EventSource.CLOSED ? "given up" : "error");
        }""",
        target,
    )
    return page


def wait(page: Any, condition: str) -> None:
    """Wait for a condition in the page. (Playwright's own way evaluates a text, which the policy forbids.)"""

    def state() -> str:
        return f"{condition}: {page.evaluate('[source.readyState, seen, states]')}"

    eventually(lambda: page.evaluate(condition), PATIENCE / 1000, state, interval=0.05)
