"""The console's page as a test uses it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.support.browser import PATIENCE, Problems

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


class Console:
    """Reads and operates the page. Every wait has the page's deadline."""

    def __init__(self, page: Page, problems: Problems) -> None:
        self.page = page
        self.problems = problems

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def listen(self, channel: str, since: str = "") -> None:
        """Connect, and wait until the stream is open."""
        self["#channels"].fill(channel)
        self["#since"].select_option(since)
        self["#connect"].click()
        self.wait_state("open")

    def open_channel(self, channel: str) -> None:
        """Show a channel or pattern, and wait until its rights are known."""
        self["#prefix"].fill(channel)
        self["#open-channel"].click()
        self.wait_text("#channel-name", f"^{re.escape(channel)}$")
        self["#rights li"].nth(2).wait_for()

    def wait_state(self, state: str) -> None:
        self.page.wait_for_selector(f'#machine[data-state="{state}"]')

    def text(self, selector: str) -> str:
        return self[selector].inner_text()

    def wait_text(self, selector: str, pattern: str) -> str:
        """Wait until the selected element's text matches, and return it."""
        from playwright.sync_api import expect

        expect(self[selector]).to_have_text(re.compile(pattern), timeout=PATIENCE)
        return self.text(selector)

    def wait_rows(self, *data: str) -> None:
        """Wait until the newest events have this data, the newest first."""
        from playwright.sync_api import expect

        rows = self["#events .row .data"]
        expect(rows).to_have_count(len(data), timeout=PATIENCE)
        assert rows.all_inner_texts() == list(data)

    def modules(self, script: str) -> Any:
        """Run a function in the page. Its argument ``load(name)`` imports one of the console's modules."""
        return self.page.evaluate(f"({script})((name) => import('/console/' + name))")
