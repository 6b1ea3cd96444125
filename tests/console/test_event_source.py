"""The browsers' own EventSource, where its life is longer than in tests/clients: drains, restarts, what it gives up
on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.conftest import StartServer
from tests.console.event_source import Listen, wait
from tests.support.browser import Problems
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "tuple[Page, Problems]"]

CONNECTING = 0  # EventSource.readyState


def test_it_resumes_with_its_last_id_after_a_restart(listen: Listen, start_server: StartServer) -> None:
    server = start_server(SSE_RETRY=300, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.2)
    page = listen(server, "/events/news")
    wait(page, "source.readyState === EventSource.OPEN")
    first = server.publish("news", "before")
    wait(page, "seen.length === 1")
    server.terminate()
    server.wait(15)
    wait(page, "states.includes('error')")
    server.start()
    second = server.publish("news", "after")
    wait(page, "seen.length === 2")
    assert page.evaluate("seen") == [["message", "before", first], ["message", "after", second]]
    assert "given up" not in page.evaluate("states")


def test_a_quiet_stream_resumes_from_its_opening(listen: Listen, start_server: StartServer) -> None:
    """It has seen no event, so only the opening's id tells the server where it was."""
    server = start_server(SSE_RETRY=300, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.2)
    page = listen(server, "/events/quiet")
    wait(page, "source.readyState === EventSource.OPEN")
    server.terminate()
    server.wait(15)
    server.start()
    missed = server.publish("quiet", "missed")  # before or after it reconnects
    wait(page, "seen.length === 1")
    assert page.evaluate("seen") == [["message", "missed", missed]]


def test_it_receives_a_reset(listen: Listen, served: Server) -> None:
    page = listen(served, "/events/reset?lastEventId=nonsense")
    wait(page, "seen.length === 1")
    ((kind, data, _),) = page.evaluate("seen")
    assert kind == "stream-reset" and '"reason":"malformed"' in data


def test_it_does_not_give_up_on_a_full_or_draining_server(listen: Listen, start_server: StartServer) -> None:
    server = start_server(SSE_RETRY=200, SSE_MAX_STREAMS=1, SSE_DRAIN_DELAY=1.5, SSE_DRAIN_WINDOW=0.2)
    with SSEClient(server.port, "/events/occupied"):
        page = listen(server, "/events/news")
        wait(page, "states.filter((s) => s === 'error').length >= 2")   # full: sent away twice
    wait(page, "states.at(-1) === 'open' && source.readyState === EventSource.OPEN")
    server.publish("news", "there is room")
    wait(page, "seen.length === 1")
    server.terminate()
    eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 503, 5)
    refused = len(page.evaluate("states"))
    # A second one that begins during the drain is sent away, too.
    page.evaluate(
        """() => {
            window.other = new EventSource("/events/news");
            other.onerror = () => states.push("other " + other.readyState);  // now, because it soon tries again
        }"""
    )
    wait(page, f"states.includes('other {CONNECTING}')")
    server.wait(15)
    server.start()
    page.evaluate("other.close()")
    wait(page, f"states.length > {refused} && source.readyState === EventSource.OPEN")
    server.publish("news", "again")
    wait(page, "seen.at(-1)[1] === 'again'")
    assert page.evaluate("seen.map((e) => e[1])") == ["there is room", "again"]
    assert "given up" not in page.evaluate("states")


def test_a_page_of_another_origin_publishes_with_its_trace_and_reads_the_request_id(
    start_server: StartServer, open_page: OpenPage
) -> None:
    home = start_server()
    server = start_server(SSE_CORS_ORIGINS=home.url("").rstrip("/"), SSE_AUTH="none", LOG_FORMAT="json")
    page, problems = open_page()
    problems.allowed = ["Failed to load resource"]  # the icon of the page
    page.goto(home.url("/healthz"))  # a page without the console's policy, which allows only its own origin
    found = page.evaluate(
        """async (target) => {
            const headers = {traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "X-Request-ID": "page/1"};
            const answer = await fetch(target, {method: "POST", body: "x", headers});
            return [answer.status, answer.headers.get("X-Request-ID")];
        }""",
        server.url("/events/page"),
    )
    assert found == [201, "page/1"]
    server.wait_for_log('"request_id": "page/1", "trace": "4bf92f3577b34da6a3ce929d0e0e4736"')
