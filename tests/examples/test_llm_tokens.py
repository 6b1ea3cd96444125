"""examples/llm_tokens.py with a plain EventSource: in Chromium, and over a raw socket under each kind of server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import place
from tests.live.other_servers import GEVENT, GTHREAD, OURS
from tests.support.browser import chromium, page_of
from tests.support.sse_client import Ending, SSEClient

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Its answer takes four seconds: long enough for a busy machine to open a page in the middle of it.
QUESTION = "why is a question of so many words not answered by all of them in turn"
ANSWER = f"You ask: {QUESTION!r}. The answer is forty-two. "
SHORT = "You ask: 'how'. The answer is forty-two. "
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[place.Pods]:
    with place.two("llm_tokens", tmp_path_factory.mktemp("pods")) as running:
        yield running


def ask(page: Page, url: str) -> str:
    """Ask in the page, and wait for the answer's first words; return the address of the answer."""
    page.goto(url)
    page.fill("[name=question]", QUESTION)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_function("answer.textContent.startsWith('You ask: ')")
    return page.url


def text(page: Page) -> Any:
    return page.text_content("#answer")


def wait_for_end(page: Page, state: str = "") -> None:
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    page.wait_for_function("wanted => state.textContent === wanted", arg=state)


def test_an_answer_is_read_to_its_end_though_the_page_is_reloaded_and_in_a_second_tab(
    browser: Browser, pods: place.Pods
) -> None:
    with page_of(browser) as (page, _), page_of(browser) as (tab, _):
        address = ask(page, pods.url)
        assert text(page) != ANSWER, "it came at once, not as it was made"
        page.reload()
        tab.goto(address)
        for one in (page, tab):
            one.wait_for_function("answer.textContent.startsWith('You ask: ')")
            wait_for_end(one)
            assert text(one) == ANSWER
        page.reload()  # after its end
        wait_for_end(page)
        assert text(page) == ANSWER


def test_the_stop_button_stops_the_model_for_all_tabs_and_a_reader_that_leaves_does_not(
    browser: Browser, pods: place.Pods
) -> None:
    with page_of(browser) as (page, _), page_of(browser) as (tab, _):
        address = ask(page, pods.url)
        tab.goto(address)
        tab.wait_for_function("answer.textContent")
        page.get_by_role("button", name="Stop").click()
        for one in (page, tab):
            wait_for_end(one, "Stopped.")
        assert text(page) == text(tab)
        assert len(text(page)) < len(ANSWER)
        page.reload()
        wait_for_end(page, "Stopped.")


def test_an_event_source_that_nobody_closes_is_told_by_204_to_stop(browser: Browser, pods: place.Pods) -> None:
    """A page that does not know the event ``run`` does not ask again for ever either."""
    with page_of(browser) as (page, problems):
        problems.allowed = ["Failed to load resource"]
        address = ask(page, pods.url)
        channel = re.findall(r"channel=([^&]+)", address)[0].replace("%3A", ":")
        page.evaluate(
            """(channel) => {
                window.got = [];
                window.plain = new EventSource(`/events/${channel}?since=earliest`);
                plain.onmessage = (event) => got.push(event.data);
                plain.onerror = () => got.push(plain.readyState);
            }""",
            channel,
        )
        page.wait_for_function("plain.readyState === EventSource.CLOSED")
        got = page.evaluate("got")
        assert "".join(got[:-2]) == ANSWER
        assert got[-2:] == [0, 2], "one end of the stream, and one answer 204"


def test_a_pod_that_leaves_finishes_the_answer_and_its_readers_miss_no_word(browser: Browser, pods: place.Pods) -> None:
    with page_of(browser) as (page, problems), pods.leaving() as leave:
        problems.allowed = ["Failed to load resource", "net::ERR_"]
        ask(page, pods.url)
        leave()
        wait_for_end(page)
        assert text(page) == ANSWER


@pytest.mark.parametrize("kind", [OURS, GEVENT, GTHREAD])
def test_it_works_under_each_kind_of_server(kind: str, tmp_path: Path) -> None:
    with place.one("llm_tokens", tmp_path, kind) as server:
        told = [server.request("POST", "/answers", "question=how&id=one", FORM).json() for _ in range(2)]
        assert told[0] == told[1], "a form that is sent twice starts nothing twice"
        with SSEClient(server.port, f"/events/{told[0]['channel']}?since=earliest") as client:
            blocks = client.read_to_end(10)
        assert client.ending is Ending.TERMINATED
        assert "".join(block.data or "" for block in blocks if block.event is None) == SHORT
        (end,) = [json.loads(block.data or "") for block in blocks if block.event == "run"]
        assert (end["state"], end["usage"]) == ("done", {"tokens": 7})
        assert server.request("POST", f"/answers/{told[0]['run']}/stop").status == 200
        assert server.request("POST", "/answers/nothing/stop").status == 404
