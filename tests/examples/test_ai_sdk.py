"""examples/ai_sdk.py and its page, with the AI SDK's real ``useChat`` in Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import place
from tests.support.browser import chromium, page_of
from tests.support.programs import require_program
from tests.support.server import ROOT
from tests.support.sse_client import Ending, SSEClient

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

MODULES = ROOT / "tests" / "js" / "node_modules"
# Its answer takes four seconds: long enough for a busy machine to open a page in the middle of it.
QUESTION = "why is a question of so many words not answered by all of them in turn"
ANSWER = f"You ask: {QUESTION!r}. The answer is forty-two. "
SHORT = "You ask: 'how'. The answer is forty-two. "
# The page that a front end's own tools would make.
MAIN = """
    import { createRoot } from "react-dom/client";
    import { Chat } from "./ai_sdk_chat.jsx";

    const id = location.pathname.split("/").at(-1);
    const { messages } = await (await fetch(`/api/chat/${id}`)).json();
    createRoot(document.body).render(<Chat id={id} messages={messages} />);
"""


@pytest.fixture(scope="module")
def page_text() -> str:
    """Bundle the example's page."""
    require_program("node", "nodejs")
    if not (MODULES / "esbuild").is_dir():
        line = "needs the packages of tests/js: npm ci --prefix tests/js --ignore-scripts"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)
    options = ["--bundle", "--format=esm", "--jsx=automatic", "--loader=jsx", "--log-level=error"]
    bundled = subprocess.run(
        [str(MODULES / "esbuild" / "bin" / "esbuild"), *options, '--define:process.env.NODE_ENV="production"'],
        input=MAIN,
        cwd=ROOT / "examples",
        env=os.environ | {"NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert bundled.returncode == 0, bundled.stderr
    script = bundled.stdout.replace("</script", "<\\/script")
    return f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script type="module">{script}</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[place.Pods]:
    with place.two("ai_sdk", tmp_path_factory.mktemp("pods")) as running:
        yield running


@pytest.fixture
def open_chat(browser: Browser, pods: place.Pods, page_text: str) -> Iterator[Callable[..., Page]]:
    """``open_chat(chat)`` opens a chat in a page of its own; the test fails if it had an error."""
    with contextlib.ExitStack() as pages:

        def opened(chat: str, allowed: tuple[str, ...] = ()) -> Page:
            page, problems = pages.enter_context(page_of(browser))
            problems.allowed = list(allowed)

            def serve(route: Route) -> None:
                route.fulfill(body=page_text, content_type="text/html")

            page.route("**/chats/*", serve)
            page.goto(f"{pods.url}/chats/{chat}")
            page.wait_for_selector("input")
            return page

        yield opened


def ask(page: Page, question: str = QUESTION) -> None:
    page.fill("input", question)
    page.get_by_role("button", name="Send").click()
    wait_until_answered(page)


def wait_until_answered(page: Page) -> None:
    """Wait until the page shows the beginning of an answer."""
    page.wait_for_function("document.querySelector('p:last-of-type').textContent.startsWith('You ask: ')")


def said(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all("p", "all => all.map((one) => one.textContent)")
    return found


def wait_until_ready(page: Page) -> None:
    page.wait_for_function("document.querySelector('output').textContent === 'ready'")


def chat_name() -> str:
    return uuid.uuid4().hex[:12]


def test_an_answer_is_resumed_by_a_page_that_is_reloaded_and_by_a_second_tab(open_chat: Callable[..., Page]) -> None:
    chat = chat_name()
    page = open_chat(chat)
    ask(page)
    page.reload()
    tab = open_chat(chat)
    for one in (page, tab):
        wait_until_answered(one)
        assert said(one)[1] != ANSWER, "it is no longer being given"
    for one in (page, tab):
        wait_until_ready(one)
        assert said(one) == [QUESTION, ANSWER]
    page.reload()  # after its end: from the app's own database
    wait_until_answered(page)
    assert said(page) == [QUESTION, ANSWER]
    ask(page, "how")
    wait_until_ready(page)
    assert said(page) == [QUESTION, ANSWER, "how", SHORT]


def test_the_stop_button_stops_the_model_in_all_tabs(open_chat: Callable[..., Page], pods: place.Pods) -> None:
    chat = chat_name()
    page = open_chat(chat)
    ask(page)
    tab = open_chat(chat)
    wait_until_answered(tab)
    page.get_by_role("button", name="Stop").click()
    for one in (page, tab):
        wait_until_ready(one)
        assert said(one) == said(page)
    (question, answer) = said(page)
    assert question == QUESTION and ANSWER.startswith(answer) and answer != ANSWER
    stored = pods.servers[0].request("GET", f"/api/chat/{chat}").json()["messages"]
    assert stored[-1]["parts"] == [{"type": "text", "text": answer}]


def test_a_pod_that_leaves_finishes_the_answer_and_the_page_reads_it_from_another(
    open_chat: Callable[..., Page], pods: place.Pods
) -> None:
    page = open_chat(chat_name())
    with pods.leaving() as leave:
        ask(page)
        leave()
        page.wait_for_function("text => document.querySelector('p.assistant').textContent === text", arg=ANSWER)
        wait_until_ready(page)
        assert said(page) == [QUESTION, ANSWER]


@pytest.mark.slow
def test_a_pod_that_is_killed_loses_the_answer_and_the_page_goes_on(
    open_chat: Callable[..., Page], pods: place.Pods
) -> None:
    page = open_chat(chat_name(), allowed=("Failed to load resource", "net::ERR_"))
    with pods.dying() as die:
        ask(page)
        die()
        wait_until_ready(page)
        (question, answer) = said(page)
        assert question == QUESTION and ANSWER.startswith(answer) and answer != ANSWER
        ask(page, "how")
        wait_until_ready(page)
        assert said(page)[-1] == SHORT


def test_the_stream_is_the_ai_sdks_and_has_nothing_else(pods: place.Pods) -> None:
    """The parts as they are on the wire, and the same message twice has one answer."""
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "how"}]}
    body = json.dumps({"id": chat_name(), "messages": [message], "trigger": "submit-message"})
    parts = []
    for server in pods.servers:
        with SSEClient(
            server.port, "/api/chat", method="POST", headers={"Content-Type": "application/json"}, body=body
        ) as client:
            blocks: list[Any] = client.read_to_end(10)
            assert client.headers["x-vercel-ai-ui-message-stream"] == "v1"
            assert client.ending is Ending.TERMINATED
        parts.append([block.data for block in blocks])
    assert parts[0] == parts[1]
    *made, done = parts[0]
    assert done == "[DONE]"
    made = [json.loads(part) for part in made]
    assert [part["type"] for part in made] == ["start", "text-start", *["text-delta"] * 7, "text-end", "finish"]
    assert "".join(part.get("delta", "") for part in made) == SHORT
