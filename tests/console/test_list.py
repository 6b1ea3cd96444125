"""The list of events: what it keeps, when it is redrawn, and what a row shows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.console.console import Console
from tests.support.server import Server
from tests.support.wait import eventually

Opens = Callable[..., Console]

#: What the list shows at most, and what may wait at most (list.js).
MOST = 500


def publish(served: Server, channel: str, *data: str) -> None:
    """Publish these data in one batch."""
    lines = "".join(json.dumps({"channel": channel, "data": one}) + "\n" for one in data)
    answer = served.request("POST", "/events", lines, {"Content-Type": "application/x-ndjson"})
    assert answer.status == 201, answer.text


def flood(page: Console, served: Server, channel: str, until: Callable[[], bool]) -> None:
    """Publish 100 events a second until the condition holds, for 15 s at most."""
    deadline = time.monotonic() + 15
    number = 0
    while not until():
        assert time.monotonic() < deadline, f"never: {page.text('#held')!r}"
        publish(served, channel, *(f"{number + more}" for more in range(10)))
        number += 10
        page.page.wait_for_timeout(100)


def test_the_list_shows_only_the_newest_events_of_a_busy_stream(console: Opens, served: Server) -> None:
    page = console()
    page.listen("flood")
    publish(served, "flood", *map(str, range(3000)))
    page.wait_text("#received", "^3.?000$")
    page.wait_text("#events .row:first-child .data", "^2999$")
    assert page["#events .row"].count() == MOST
    page.wait_text("#kept", f"^The newest {MOST} of 3,000$")
    served.publish("flood", "one more")
    page.wait_text("#events .row:first-child .data", "^one more$")
    assert page["#events .row"].count() == MOST


def test_events_that_arrive_during_a_pause_are_shown_after_it(console: Opens, served: Server) -> None:
    page = console()
    page.listen("paused")
    page["#pause"].click()
    for number in range(3):
        served.publish("paused", f"{number}")
    page.wait_text("#held", "3 waiting")
    page.wait_rows()
    assert page["#pause"].get_attribute("aria-pressed") == "true"
    page["#pause"].click()
    page.wait_rows("2", "1", "0")
    assert page.text("#held") == ""


def test_a_pause_shows_how_many_events_were_dropped(console: Opens, served: Server) -> None:
    page = console()
    page.listen("long-pause")
    page["#pause"].click()
    publish(served, "long-pause", *map(str, range(MOST + 200)))
    page.wait_text("#held", f"^paused, {MOST} waiting, 200 older ones dropped$")
    page["#pause"].click()
    page.wait_text("#events .row:first-child .data", f"^{MOST + 199}$")
    page.wait_text("#kept", f"^The newest {MOST} of {MOST + 200}$")
    assert page["#events .row"].count() == MOST


def test_shown_and_waiting_events_are_limited_by_size(console: Opens) -> None:
    seen = console().modules(
        """async (load) => {
            const { List } = await load("list.js");
            const list = new List(document.createElement("div"), () => {});
            const seen = [];
            for (const events of [20, 4, 2]) {
                list.pause();
                for (let i = 0; i < events; i++) list.push({ id: `${i}-0`, data: "x".repeat(1 << 20) });
                seen.push([list.waiting.length, list.dropped]);
                list.goOn();
                seen.at(-1).push(list.shown.length, list.box.childElementCount);
            }
            return seen;
        }"""
    )
    assert seen == [[8, 12, 8, 8], [4, 0, 8, 8], [2, 0, 8, 8]]


def test_a_fast_list_is_redrawn_once_a_second(console: Opens, served: Server) -> None:
    page = console()
    page.listen("fast")
    page.page.evaluate(
        """() => {
            globalThis.changes = 0;
            globalThis.began = 0;
            new MutationObserver(() => began && changes++).observe(document.getElementById("events"), { childList: true });
        }"""
    )
    flood(page, served, "fast", lambda: "updated once a second" in page.text("#held"))
    page.page.evaluate("began = performance.now()")
    flood(page, served, "fast", lambda: bool(page.page.evaluate("performance.now() - began > 3500")))
    changes, took = page.page.evaluate("[changes, (performance.now() - began) / 1000]")
    assert 1 <= changes <= took + 1


def test_a_fast_list_is_not_redrawn_while_somebody_reads_it(console: Opens, served: Server) -> None:
    page = console()
    page.listen("read")
    flood(page, served, "read", lambda: "updated once a second" in page.text("#held"))
    page["#events .row"].first.wait_for()
    page["#events"].hover()
    flood(page, served, "read", lambda: "held while you read" in page.text("#held"))
    top = page["#events .row:first-child .id"].inner_text()
    received = page.text("#received")
    flood(page, served, "read", lambda: page.text("#received") != received)
    assert page["#events .row:first-child .id"].inner_text() == top
    page["#publish-channel"].hover()
    flood(page, served, "read", lambda: page["#events .row:first-child .id"].inner_text() != top)
    page["#events"].hover()
    flood(page, served, "read", lambda: "held while you read" in page.text("#held"))
    # When no more events arrive, the list is slow again, and shows those that have waited.
    eventually(lambda: page.text("#events .row:first-child .id") == page.text("#last-id"), 15, lambda: page.text("#held"))


def test_a_slow_list_is_redrawn_even_if_the_pointer_is_in_it(console: Opens, served: Server) -> None:
    page = console()
    page.listen("slow")
    served.publish("slow", "one")
    page.wait_rows("one")
    page["#events"].hover()
    served.publish("slow", "two")
    page.wait_rows("two", "one")


def test_a_new_subscription_begins_with_an_empty_list(console: Opens, served: Server) -> None:
    """Otherwise replayed events would be there twice, beside events of other channels."""
    publish(served, "again", "one", "two")
    publish(served, "other", "three")
    page = console()
    page.listen("again", "earliest")
    page.wait_rows("two", "one")
    page["#connect"].click()
    page.wait_rows("two", "one")
    assert page.text("#received") == "2"
    page.listen("other", "earliest")
    page.wait_rows("three")
    assert page.text("#received") == "1"


@pytest.mark.parametrize("channels", ["lonely", "crowd lonely", "crowd lone*"], ids=["one", "two", "a pattern"])
def test_a_row_shows_the_channel_that_its_event_is_from(console: Opens, served: Server, channels: str) -> None:
    page = console()
    page.listen(channels)
    page["#channels"].fill("the next one")  # not connected yet
    given = served.publish("lonely", '{"a": "\u2028\\r"}', "?event=created")
    page.wait_text(".row .channel", "^lonely$")
    # The event is as it was published, though it came in an envelope.
    assert page.text(".row .data") == '{"a": "\u2028\\r"}'
    assert page.text(".row .chip") == "created" and page.text(".row .id") == given


def test_a_large_event_shows_its_size_and_can_be_expanded_and_copied(console: Opens, served: Server) -> None:
    page = console(permissions=["clipboard-read", "clipboard-write"])
    page.listen("large")
    data = "".join(f"{number:04} " for number in range(10_000))
    served.publish("large", data)
    page.wait_text(".row .size", "^49 KB$")
    assert len(page.text(".row .data")) < 1000
    page[".row .copy"].click()
    page.wait_text(".row .copy", "Copied")
    assert page.page.evaluate("navigator.clipboard.readText()") == data
    page[".row .expand"].click()
    assert page[".row .data"].evaluate("made => made.textContent") == data
    assert page[".row .expand"].get_attribute("aria-expanded") == "true"
    page[".row .expand"].click()
    assert len(page.text(".row .data")) < 1000
    served.publish("large", "small")
    page["#events .row"].nth(1).wait_for()
    assert page[".row:first-child .size, .row:first-child .expand"].count() == 0
