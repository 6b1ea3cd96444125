"""The console's channels: the list with its listeners, history, an end, erasing, rights, runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt

from tests.conftest import StartServer
from tests.console.console import Console
from tests.console.test_list import publish
from tests.support.firefox import FirefoxPage
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

Opens = Callable[..., Console]

KEY = "a-key-of-more-than-thirty-two-bytes-in-all"
APP = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "tests.console.app:app")

NAMES = "#channel-rows button"


def token(**rights: list[str]) -> str:
    return jwt.encode({"sub": "alice", "exp": time.time() + 600, "sse": rights}, KEY, "HS256")


def find(page: Console, prefix: str) -> None:
    page["#prefix"].fill(prefix)
    page["#list-channels"].click()


def row(page: Console, channel: str) -> list[str]:
    """What the list says of a channel, without its age."""
    (cells,) = page[f'#channel-rows tr[data-name="{channel}"]'].evaluate_all("all => all.map((r) => [...r.cells].map((c) => c.textContent))")
    return list(cells[:-1])


def test_the_list_has_listeners_and_is_found_by_prefix(console: Opens, served: Server) -> None:
    publish(served, "found:a", "12345", "67")
    served.publish("found:b", "x", "?close=1")
    served.publish("elsewhere", "x")
    page = console()
    with SSEClient(served.port, "/events/found:a"), SSEClient(served.port, "/events/found:*"):
        find(page, "found:*")
        page.wait_text(f"{NAMES} >> nth=0", "^found:a$")
        assert page[NAMES].all_inner_texts() == ["found:a", "found:b"]
        # The workers report their streams every few seconds; the page asks again.
        eventually(lambda: row(page, "found:a") == ["found:a", "2", "2", "7 B"], 15, lambda: row(page, "found:a"))
        assert row(page, "found:b") == ["found:b ended", "1", "1", "1 B"]
    find(page, "found:nothing")
    page.wait_text("#list-note", "^No channel begins with found:nothing.$")
    page.problems.allowed.append("400 (BAD REQUEST)")
    find(page, "no such name")
    page.wait_text("#list-note", "prefix")
    assert page["#channel-table"].is_hidden()


def test_the_list_has_pages(console: Opens, served: Server) -> None:
    names = [f"page:{number:02}" for number in range(45)]
    lines = "".join(json.dumps({"channel": name, "data": "x"}) + "\n" for name in names)
    assert served.request("POST", "/events", lines, {"Content-Type": "application/x-ndjson"}).status == 201
    page = console()
    find(page, "page:")
    for number, button in enumerate(("next", "next", "previous", "previous", "next")):
        shown = {0: 0, 1: 20, 2: 40, 3: 20, 4: 0}[number]
        page.wait_text(f"{NAMES} >> nth=0", f"^{names[shown]}$")
        assert page[NAMES].all_inner_texts() == names[shown : shown + 20]
        assert page["#previous"].is_disabled() == (shown == 0) and page["#next"].is_disabled() == (shown == 40)
        page[f"#{button}"].click()
    # Whoever is at a row with the keyboard stays there when the list is read again.
    page.wait_text(f"{NAMES} >> nth=0", f"^{names[20]}$")
    page[NAMES].nth(3).focus()
    page.page.evaluate("for (const row of document.querySelectorAll('#channel-rows tr')) row.className = 'old'")
    page["#channel-rows tr:not(.old)"].first.wait_for()
    assert page.page.evaluate("document.activeElement.textContent") == names[23]


def test_history_is_read_page_by_page_and_apart_from_the_stream(console: Opens, served: Server) -> None:
    publish(served, "history", *map(str, range(60)))
    page = console()
    page.open_channel("history")
    page.wait_text("#channel-facts", r"^60 events, 110 B, the newest (just now|\d+ s ago); 0 streams of it.$")
    page["#channel-history"].click()
    data = page["#history .data"]
    page["#history .row"].nth(49).wait_for()
    assert data.all_text_contents() == [str(number) for number in range(50)]
    page["#history-more"].click()
    page["#history .row"].nth(59).wait_for()
    page["#history-more"].click()
    page.wait_text("#history-note", "^No more events so far.$")
    served.publish("history", "the last", "?close=1")
    page["#history-more"].click()
    page.wait_text("#history-note", "^That is all: it has ended.$")
    assert data.all_text_contents() == [*map(str, range(60)), "the last"]
    page["#history-from"].select_option("3600")
    page.wait_text("#history-note", "before this log began")
    assert page["#events .row"].count() == 0


def test_an_end_is_confirmed_and_ends_the_stream(console: Opens, served: Server) -> None:
    page = console()
    page.listen("finite")
    served.publish("finite", "x")
    page.wait_rows("x")
    page.open_channel("finite")
    page["#channel-end"].click()
    page["#confirm-no"].click()
    served.publish("finite", "y")
    page["#channel-end"].click()
    page["#confirm-yes"].click()
    page.wait_text("#channel-note", "^It has ended, at ")
    page.wait_text("#notice", "^finite has ended: nothing will follow.$")
    page.wait_state("closed")
    page.wait_rows("y", "x")
    page.wait_text("#channel-facts", "^Ended. 2 events")
    assert page["#channel-end"].is_disabled()


def test_erasing_needs_the_typed_name_and_takes_the_rows_too(console: Opens, served: Server) -> None:
    page = console()
    page.listen("private:*")
    publish(served, "private:alice", "a", "b")
    served.publish("private:bob", "c")
    page.wait_rows("c", "b", "a")
    page.open_channel("private:alice")
    page["#channel-history"].click()
    page["#history .row"].nth(1).wait_for()
    page["#channel-erase"].click()
    yes = page["#confirm-yes"]
    for typed in ("", "private:bob", "private:alic"):
        page["#confirm-word"].fill(typed)
        assert yes.is_disabled()
    page["#confirm-word"].press("Enter")  # does nothing
    page["#confirm-word"].press("Escape")
    assert page["#confirm"].is_hidden()
    assert page.page.evaluate("document.activeElement.id") == "channel-erase"
    page["#channel-erase"].click()
    assert page["#confirm-word"].input_value() == "" and yes.is_disabled()
    page["#confirm-word"].fill("private:alice")
    page["#confirm-word"].press("Enter")
    page.wait_text("#channel-note", "^2 events are erased, through ")
    page.wait_text("#notice", "^private:alice was erased.")
    page.wait_rows("c")
    assert page["#history .row"].count() == 0
    answer = served.request("GET", "/events/private:*?since=earliest", headers={"Accept": "application/json"})
    assert [event["data"] for event in answer.json()["events"]] == ["c"]


def test_the_streams_of_a_channel_are_ended_and_return(console: Opens, served: Server) -> None:
    page = console()
    page.listen("members")
    page.open_channel("members")
    page["#channel-streams"].click()
    page["#confirm-yes"].click()
    page.wait_text("#channel-note", "^Its streams end.$")
    page.wait_text("#machine-caption", "^open, resumed after ")
    served.publish("members", "still here")
    page.wait_rows("still here")


def test_a_pattern_can_be_read_but_not_erased(console: Opens, served: Server) -> None:
    served.publish("several:a", "x")
    page = console()
    page.open_channel("several:*")
    page.wait_text("#channel-facts", "^All channels that begin with several:.$")
    assert page["#channel-erase"].is_disabled() and page["#channel-end"].is_disabled()
    page["#channel-history"].click()
    page.wait_text("#history .channel", "^several:a$")
    page["#since"].select_option("earliest")
    page["#channel-listen"].click()
    page.wait_rows("x")
    assert page["#channels"].input_value() == "several:*"


def test_it_says_what_the_visitor_may_do_and_what_is_missing(console: Opens, start_server: StartServer) -> None:
    server = start_server(SSE_JWT_KEY=KEY, SSE_JWT_ALGORITHMS="HS256")
    page = console(where=server)
    page.problems.allowed += ["401", "403"]
    find(page, "")
    page.wait_text("#list-note", "needs a token")
    page.open_channel("secret")
    missing = page["#rights li"].all_inner_texts()
    assert [text.split(".")[0] for text in missing] == ["Read: no", "Publish and close: no", "List, erase, end streams: no"]
    assert "Publishing needs a key or a token, as Authorization: Bearer" in missing[1]
    buttons = page["#channel > .buttons button"]
    assert buttons.evaluate_all("all => all.every((b) => b.disabled)")
    page["#token"].fill(token(subscribe=["secret"], publish=["other"]))
    page["#token"].blur()
    page.wait_text("#rights li >> nth=0", "^Read: yes, with the token of alice, until ")
    assert page["#rights li"].all_inner_texts()[1:] == [
        "Publish and close: no. The token's sse claim does not cover publishing to secret",
        "List, erase, end streams: no. The token's sse claim does not cover managing secret",
    ]
    assert page.text("#claims") == "The token covers, to read: secret; to publish: other; to manage: nothing."
    assert buttons.evaluate_all("all => all.map((b) => b.disabled)") == [False, False, True, True, True]
    page["#token"].fill(token(subscribe=["*"], publish=["*"], manage=["*"]))
    page["#token"].blur()
    page.wait_text("#rights li >> nth=2", "yes")
    assert buttons.evaluate_all("all => all.every((b) => !b.disabled)")
    page.wait_text("#list-note", "No channel has events")


def test_runs_are_listed_and_can_be_stopped(console: Opens, tmp_path: Path) -> None:
    with Server(command=APP, NOTES=str(tmp_path)) as server:
        assert server.request("POST", "/start/silent/chat").status == 201
        run = server.request("GET", "/runs?channel=chat").json()["runs"][0]["run"]
        page = console(where=server)
        page.listen("chat")
        page.open_channel("chat")
        state = "#run-rows td:first-child"
        page.wait_text(state, "^running$")
        assert page["#run-rows button"].get_attribute("aria-label") == f"Stop the run {run}"
        page["#run-rows button"].click()
        page.wait_text(state, "^stopped$")
        assert page["#run-rows button"].count() == 0
        page.wait_text("#events .chip", "^run$")
        assert json.loads(page["#events .data"].all_text_contents()[0])["state"] == "stopped"
        page.wait_text("#notice", "^chat has ended")
        assert (tmp_path / "chat").read_text().split() == ["begun", "GeneratorExit", "closed"]


def test_it_works_in_firefox(running_firefox: FirefoxPage, served: Server) -> None:
    def shown(script: str) -> Any:
        return eventually(lambda: running_firefox.evaluate(script), 15, lambda: script)

    served.publish("firefox:a", "x")
    running_firefox.goto(served.url("/?channel=firefox:*&since=earliest"))
    assert shown("document.querySelector('#events .channel')?.textContent") == "firefox:a"
    running_firefox.evaluate("document.getElementById('list-channels').click()")
    shown("document.querySelector('[data-channel=\"firefox:a\"]')")
    running_firefox.evaluate("document.querySelector('[data-channel=\"firefox:a\"]').click()")
    assert shown("document.querySelectorAll('#rights .yes').length") == 3
    running_firefox.evaluate("document.getElementById('channel-history').click()")
    assert shown("document.querySelector('#history .data')?.textContent") == "x"
    for width in (1320, 500):  # its windows are no narrower
        running_firefox.resize(width, 900)
        shown(f"innerWidth <= {width}")
        running_firefox.screenshot(f"firefox-{width}")
        assert running_firefox.evaluate("document.documentElement.scrollWidth <= innerWidth")
    running_firefox.evaluate(
        """() => {
            document.getElementById("channel-erase").click();
            const word = document.getElementById("confirm-word");
            word.value = "firefox:a";
            word.dispatchEvent(new Event("input"));
            document.getElementById("confirm-yes").click();
        }"""
    )
    assert "1 event is erased" in shown("document.getElementById('channel-note').textContent.length > 3 && document.getElementById('channel-note').textContent")
    assert shown("!document.querySelector('#events .row')")
    running_firefox.goto("about:blank")


def test_it_finds_the_channels_beside_the_events(console: Opens, start_server: StartServer) -> None:
    server = start_server(SSE_URL_PREFIX="/live/events")
    page = console("?channel=moved", where=server)
    page.wait_state("open")
    page["#publish-channel"].fill("moved")
    page["#publish button"].click()
    page.wait_rows('{"item": 1}')
    find(page, "")
    page.wait_text(f"{NAMES} >> nth=0", "^moved$")
    page[NAMES].first.click()
    page.wait_text("#channel-facts", "^1 event, ")
    page["#channel-history"].click()
    page["#history .row"].wait_for()
