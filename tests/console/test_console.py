"""The console in a real browser: streams, publishing, tokens, the keyboard, hostile data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from tests.conftest import StartServer
from tests.console.console import Console
from tests.support.server import Server

Opens = Callable[..., Console]


def test_it_connects_receives_and_shows_the_connections_state(console: Opens, served: Server) -> None:
    page = console()
    assert page["#node-closed"].get_attribute("class") == "node on"
    page.listen("first")
    assert page["#node-open"].get_attribute("class") == "node on"
    assert page["#edge-connecting-open"].get_attribute("class") == "walked"
    given = served.publish("first", '{"item": 1}', "?event=created")
    page.wait_rows('{"item": 1}')
    assert page.text(".row .chip") == "created"
    assert page.text(".row .id") == given
    assert page.text("#received") == "1"
    assert page.text("#retry") == "1200 ms"
    page.wait_text("#heartbeat", r"\d")
    page["#close"].click()
    page.wait_state("closed")
    served.publish("first", "nobody listens")
    assert page["#connect"].is_enabled() and page["#close"].is_disabled() and page["#drop"].is_disabled()
    page.wait_rows('{"item": 1}')


def test_after_a_drop_it_counts_down_and_marks_missed_events_as_replayed(console: Opens, served: Server) -> None:
    page = console()
    page.listen("dropped")
    before = served.publish("dropped", "before")
    page.wait_rows("before")
    # Recorded in the page at every frame, because a busy browser may show the countdown only a few times.
    page.page.evaluate(
        """() => {
            globalThis.countdown = [];
            const look = () => {
                countdown.push(document.getElementById("countdown").textContent);
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    page["#drop"].click()
    page.wait_state("reconnecting")
    served.publish("dropped", "missed 1")
    served.publish("dropped", "missed 2")
    assert page.text("#machine-caption") == "dropped"
    page.wait_state("open")
    assert page.text("#machine-caption") == f"open, resumed after {before}"
    page.wait_text("#notice", f"2 missed events replayed after {before}")
    served.publish("dropped", "live again")
    page.wait_rows("live again", "missed 2", "missed 1", "before")
    assert page["#events .row.replayed .data"].all_inner_texts() == ["missed 2", "missed 1"]
    seen = [float(text.split()[2]) for text in page.page.evaluate("countdown") if text]
    assert 0.5 < seen[0] <= 1.2 and seen == sorted(seen, reverse=True) and seen[-1] < 0.5


def test_a_drop_before_the_first_event_shows_only_missed_events(
    console: Opens, start_server: StartServer
) -> None:
    """Openings are not events, and neither is the retry before the end."""
    server = start_server(SSE_RETRY=1200, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.2)
    page = console(where=server)
    page.problems.allowed.append("net::ERR_")
    page.listen("quiet")
    page.wait_text("#last-id", r"\d")
    page["#drop"].click()
    page.wait_state("reconnecting")
    server.publish("quiet", "missed")
    page.wait_rows("missed")
    server.terminate()
    server.wait(15)
    page.wait_state("reconnecting")
    assert page.text("#received") == "1"
    page.wait_rows("missed")


def test_the_publish_form_publishes_and_shows_the_result(console: Opens) -> None:
    page = console()
    page.listen("form")
    page["#publish-channel"].fill("form")
    page["#publish-type"].fill("created")
    page["#publish-data"].fill("two\nlines")
    page["#publish button"].click()
    stored = page.wait_text("#published", "stored as")
    page.wait_rows("two\nlines")
    assert stored == f"stored as {page.text('.row .id')}"
    page.problems.allowed.append("400 (BAD REQUEST)")
    page["#publish-channel"].fill("no such name")
    page["#publish button"].click()
    page.wait_text("#published", "channel")


@pytest.mark.parametrize(
    ("settings", "since", "words"),
    [
        pytest.param({"SSE_REPLAY_LIMIT": 2}, "earliest", "Too many events were missed", id="too-far"),
        pytest.param({}, "3600", "from before this log began", id="before-log"),
    ],
)
def test_a_stream_reset_is_explained(
    console: Opens, start_server: StartServer, settings: dict[str, int], since: str, words: str
) -> None:
    server = start_server(**settings)
    for number in range(4):
        server.publish("gone", f"{number}")
    page = console(where=server)
    page.listen("gone", since)
    page.wait_text("#notice", words)
    assert "{" not in page.text("#notice")


def test_an_empty_list_shows_a_command_that_publishes(console: Opens, served: Server) -> None:
    page = console()
    page["#channels"].fill("nothing-yet")
    assert page.text("#example") == f"curl -d '{{\"item\":1}}' '{served.url('/events/nothing-yet')}?event=created'"
    page["#token"].fill("secret")
    page["#token"].blur()
    assert "Bearer $TOKEN" in page.text("#example") and "secret" not in page.text("#example")
    page["#token"].fill("")
    page["#token"].blur()
    page.listen("nothing-yet")
    served.publish("nothing-yet", "one")
    page.wait_rows("one")
    assert page["#empty"].is_hidden()
    page["#clear"].click()
    page.wait_rows()
    assert page["#empty"].is_visible()


def test_everything_can_be_done_with_the_keyboard(console: Opens) -> None:
    page = console()
    keyboard = page.page.keyboard

    def tab_to(identity: str) -> None:
        for _ in range(30):
            keyboard.press("Tab")
            outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            if page.page.evaluate("document.activeElement.id") == identity:
                assert outline != "none", f"#{identity} has the focus, and nothing shows it"
                return
        raise AssertionError(f"#{identity} cannot be reached by Tab")

    keyboard.press("Tab")
    assert page["a.skip"].bounding_box()["x"] >= 0  # type: ignore[index]
    tab_to("channels")
    keyboard.press("Control+A")
    keyboard.type("typed")
    keyboard.press("Enter")
    page.wait_state("open")
    tab_to("drop")
    keyboard.press("Space")
    page.wait_state("reconnecting")
    page.wait_state("open")
    tab_to("publish-channel")
    keyboard.press("Control+A")
    keyboard.type("typed")
    tab_to("publish-data")
    keyboard.press("Control+A")
    keyboard.type("by hand")
    keyboard.press("Tab")
    keyboard.press("Enter")
    page.wait_rows("by hand")
    tab_to("pause")
    keyboard.press("Space")
    assert page["#pause"].get_attribute("aria-pressed") == "true"
    tab_to("events")


def test_event_data_is_text_and_never_runs(console: Opens, served: Server) -> None:
    page = console()
    page.listen("hostile")
    attacks = [
        "<img src=x onerror=\"document.title='hacked'\">",
        "<script>document.title='hacked'</script>",
        "</pre><h1>not a heading</h1>",
        "javascript:document.title='hacked'",
    ]
    for attack in attacks:
        served.publish("hostile", attack, "?event=%3Cb%3Ebold%3C%2Fb%3E")
    page.wait_rows(*reversed(attacks))
    assert page["#events .chip"].first.inner_text() == "<b>bold</b>"
    assert page["#events img, #events script, #events h1, #events b"].count() == 0
    assert page.page.title() == "Headwater"


def test_the_page_s_policy_blocks_an_injected_script_and_html(console: Opens) -> None:
    page = console()
    page.problems.allowed += ["CSP", "Content Security Policy", "requires 'TrustedHTML'", "Trusted"]
    page.page.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.text = "document.title = 'hacked'"; document.body.append(script); } catch {}
            try { document.getElementById("notice").innerHTML = "<h1>made</h1>"; } catch {}
        }"""
    )
    assert page.page.title() == "Headwater"
    assert page["#notice h1"].count() == 0
    assert any("script-src" in problem or "trusted-types" in problem for problem in page.problems)


def test_a_stream_that_needs_a_token_opens_with_one(console: Opens, start_server: StartServer) -> None:
    import jwt

    key = "a-key-of-more-than-thirty-two-bytes-in-all"
    server = start_server(SSE_JWT_KEY=key, SSE_JWT_ALGORITHMS="HS256")
    page = console(where=server)
    page.problems.allowed += ["401", "403"]
    page["#channels"].fill("private")
    page["#connect"].click()
    page.wait_text("#notice", "token")
    assert page["#token"].get_attribute("placeholder") == "needed to read"
    assert page["#machine"].get_attribute("data-state") == "closed"
    token = jwt.encode({"exp": time.time() + 600, "sse": {"publish": ["*"], "subscribe": ["*"]}}, key, "HS256")
    page["#token"].fill(token)
    page["#token"].blur()
    page.listen("private")
    page["#publish-channel"].fill("private")
    page["#publish-data"].fill("for some")
    page["#publish button"].click()
    page.wait_rows("for some")
    assert token not in server.log_text()


def test_the_token_field_says_what_a_token_is_needed_for_once_that_is_known(
    console: Opens, start_server: StartServer
) -> None:
    def placeholder(page: Console) -> str:
        return page["#token"].get_attribute("placeholder") or ""

    server = start_server(SSE_PUBLISH_KEY="a-key-for-publishing-0001")
    assert "none needed" not in server.request("GET", "/").text     # what is shown until there is an answer
    page = console(where=server)
    page.problems.allowed.append("401")
    page["#workers .state"].wait_for()
    assert placeholder(page) == "if one is needed"     # reading needs none; publishing is unknown
    page["#publish button"].click()
    page.wait_text("#published", "key or a token")
    assert placeholder(page) == "needed to publish"
    page["#token"].fill("a-key-for-publishing-0001")
    page["#publish button"].click()
    page.wait_text("#published", "stored")


def test_the_token_field_says_that_none_is_needed_once_that_is_known(console: Opens, served: Server) -> None:
    page = console()
    page.listen("open")
    page["#publish button"].click()
    page.wait_text("#published", "stored")
    assert page["#token"].get_attribute("placeholder") == "none needed"


def test_the_service_panel_covers_all_workers(console: Opens, start_server: StartServer) -> None:
    server = start_server(WEB_CONCURRENCY=2)
    page = console(where=server)
    page.wait_text("#server", "log: sqlite, answered")
    page["#workers .state"].nth(1).wait_for()
    processes = page["#workers tr td:first-child"].all_inner_texts()
    assert sorted(map(int, processes)) == sorted(server.worker_pids())
    page.listen("busy")
    values = page["#charts .value span"]
    with contextlib.suppress(AssertionError):
        for number in range(60):
            server.publish("busy", f"{number}")
            page.page.wait_for_timeout(100)
            shown = values.all_inner_texts()
            if all(text not in ("–", "0") for text in shown):
                break
    streams, delivered, published, delivery, canary, lag = values.all_inner_texts()
    assert streams == "2"   # this one, and the report itself
    assert 0 < float(delivered) < 100 and 0 < float(published) < 100
    assert delivery.startswith("≤ ")
    assert all(text[-1] == "s" for text in (canary, lag))
    assert all(path for path in page["#charts path.line"].evaluate_all("all => all.map((p) => p.getAttribute('d'))"))


def test_a_link_names_channels_types_and_a_beginning(console: Opens, served: Server) -> None:
    served.publish("linked", "one", "?event=created")
    served.publish("linked", "two", "?event=deleted")
    page = console("?channel=linked&channel=also&event=created&since=earliest")
    page.wait_state("open")
    page.wait_rows("one")
    assert page["#channels"].input_value() == "linked also"
    assert page["#since"].input_value() == "earliest"
