"""How the console looks: widths, colours, contrast. Screenshots go to build/screenshots."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.console.console import Console
from tests.support.browser import screenshot
from tests.support.server import ROOT, Server

Opens = Callable[..., Console]

AXE = ROOT / "tests" / "js" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = {"phone": 390, "tablet": 820, "desktop": 1320}


def fill(page: Console, served: Server, channel: str) -> None:
    """A stream that was dropped and resumed, with events of all shapes."""
    page.listen(channel)
    served.publish(channel, '{"order": 7001, "total": 84.71}', "?event=created")
    page["#publish-channel"].fill(channel)
    page["#publish button"].click()
    page.wait_text("#published", "stored")
    page["#drop"].click()
    page.wait_state("reconnecting")
    served.publish(channel, "a line\nand another one", "?event=a-type-whose-name-is-rather-longer-than-most")
    served.publish(channel, "W" * 300)
    page.wait_text("#notice", "replayed")
    page["#charts path.line[d]:not([d=''])"].first.wait_for(state="attached")


def show_channel(page: Console, channel: str) -> None:
    """A list of channels, and one of them with its history."""
    page["#prefix"].fill(channel)
    page["#list-channels"].click()
    page["#channel-rows tr"].first.wait_for()
    page.open_channel(channel)
    page["#channel-history"].click()
    page["#history .row"].nth(3).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_never_scrolls_sideways(console: Opens, served: Server, scheme: str) -> None:
    page = console(viewport={"width": WIDTHS["phone"], "height": 900}, color_scheme=scheme)
    fill(page, served, f"wide{scheme}")
    served.publish(f"wide{scheme}".ljust(128, "W"), "the longest name", "?close=1")
    show_channel(page, f"wide{scheme}")
    page["#prefix"].fill(f"wide{scheme}")
    page["#list-channels"].click()
    page["#channel-rows tr"].nth(1).wait_for()
    # A finger can hit the buttons.
    heights = page["main form button"].evaluate_all("all => all.map((b) => b.getBoundingClientRect().height)")
    assert min(heights) >= 32
    for name, width in {**WIDTHS, "narrow": 320}.items():
        page.page.set_viewport_size({"width": width, "height": 900})
        if name in WIDTHS:
            screenshot(page.page, f"console-{width}-{scheme}")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width, name


@pytest.mark.parametrize(
    ("width", "height", "rows"),
    [pytest.param(1320, 900, 9, id="desktop"), pytest.param(820, 1100, 11, id="tablet"), pytest.param(390, 844, 4, id="phone")],
)
def test_the_newest_events_are_visible_without_scrolling(
    console: Opens, served: Server, width: int, height: int, rows: int
) -> None:
    page = console(viewport={"width": width, "height": height})
    channel = f"sight{width}"
    page.listen(channel)
    for number in range(12):
        served.publish(channel, f'{{"order": {number}}}', "?event=created")
    page["#events .row"].nth(11).wait_for()
    page.page.evaluate("scrollTo(0, 0)")
    bottoms = page["#events .row"].evaluate_all("all => all.map((row) => row.getBoundingClientRect().bottom)")
    assert len([bottom for bottom in bottoms if bottom <= height]) >= rows


def test_an_expanded_event_does_not_widen_the_page(console: Opens, served: Server) -> None:
    page = console(viewport={"width": 390, "height": 844})
    page.listen("unfolded")
    served.publish("unfolded", "W" * 50_000)
    page[".row .expand"].click()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page[".row"].evaluate("row => row.getBoundingClientRect().height") < 844


def test_it_follows_the_systems_colours(console: Opens) -> None:
    def luminance(scheme: str) -> float:
        page = console(color_scheme=scheme)
        colour = page.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        return float(sum(colour))

    assert luminance("light") > 600 and luminance("dark") < 150


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(console: Opens, served: Server, scheme: str) -> None:
    if not AXE.exists():
        line = "needs axe-core: npm ci --prefix tests/js"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)
    # The page's policy would block axe itself.
    page = console(bypass_csp=True, color_scheme=scheme, reduced_motion="reduce")
    for state in ("empty", "filled", "unfolded", "channel", "dialog"):
        if state == "filled":
            fill(page, served, f"axe{scheme}")
        elif state == "unfolded":
            served.publish(f"axe{scheme}", "W" * 50_000)
            page[".row .expand"].first.click()
        elif state == "channel":
            show_channel(page, f"axe{scheme}")
        elif state == "dialog":
            page["#channel-erase"].click()
        page.page.evaluate(AXE.read_text())
        found = page.page.evaluate(
            """async (rules) => (await axe.run({ runOnly: rules })).violations.map(
                (v) => [v.id, v.help, v.nodes.map((n) => n.target.join(" ") + ": " + n.failureSummary)]
            )""",
            ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"],
        )
        assert found == [], state
