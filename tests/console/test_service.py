"""The console's service panel: its figures agree, and it shows none for a dead server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import StartServer
from tests.console.console import Console
from tests.console.test_list import publish
from tests.support.browser import Problems
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

Opens = Callable[..., Console]


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Stop the server with its connections open, as when its node loses power."""
    pids = [*server.worker_pids(), server.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_dead_server_is_shown_as_silent(console: Opens, start_server: StartServer) -> None:
    server = start_server(SSE_HEARTBEAT=0.5)
    page = console(where=server)
    page.wait_text("#server", "answered")
    page.listen("dead")
    # The page knows the time between heartbeats after two of them, and the opening does not count. It shows seconds.
    beat = ""
    for _ in range(4):
        beat = page.wait_text("#heartbeat", rf"^(?!{beat}$).*\d")
    with stopped(server):
        page.wait_text("#server", "^no report for")
        page.wait_text("#service-note", "though the connection is open")
        page.wait_text("#heartbeat", "^none for")
        assert set(page["#charts .value span"].all_inner_texts()) == {"–"}
    page.wait_text("#server", "answered")
    page.wait_text("#heartbeat", r":\d\d")
    assert page.text("#service-note") == ""


def test_after_a_lost_connection_the_server_is_shown_as_silent(console: Opens, start_server: StartServer) -> None:
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0)
    page = console(where=server)
    page.problems.allowed.append("ERR_")
    page.wait_text("#server", "answered")
    server.terminate()
    server.wait(15)
    page.wait_text("#server", "^no report for")
    page.wait_text("#service-note", "trying again")


def test_a_hidden_tab_does_not_keep_a_connection_for_figures(console: Opens, start_server: StartServer) -> None:
    server = start_server()
    page = console(where=server)
    page.wait_text("#server", "answered")

    def become(hidden: bool) -> None:
        page.page.evaluate(
            """(hidden) => {
                Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    become(True)
    server.wait_for_log('"channels": "_stats"')  # the access log's line of a stream that has ended
    page.wait_text("#server", "^no report for")
    become(False)
    page.wait_text("#server", "answered")


# Records every figure that is written, because a busy page may handle several reports at once.
RECORD = """() => {
    globalThis.figures = [];
    const text = Object.getOwnPropertyDescriptor(Node.prototype, "textContent");
    const set = function (value) { figures.push(value); text.set.call(this, value); };
    for (const made of document.querySelectorAll("#charts .value span")) {
        Object.defineProperty(made, "textContent", { get: text.get, set });
    }
}"""


def wait_figure(page: Console, condition: str) -> None:
    """Wait until a figure was written for which the condition (on `text`) is true, even if only for a moment."""
    found = f"figures.some((text) => {condition})"
    eventually(lambda: page.page.evaluate(found), 15, lambda: page.page.evaluate("figures"))


def test_no_rate_is_negative_after_a_restart(console: Opens, start_server: StartServer) -> None:
    # The page reconnects last. By then the server has opened more streams than before, and delivered fewer events.
    server = start_server(SSE_RETRY=4000, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0)
    page = console(where=server)
    page.problems.allowed.append("ERR_")
    page.listen("counted")
    delivered = "#charts .chart:nth-child(2) .value span"
    page.wait_text(delivered, "^0$")
    page.page.evaluate(RECORD)
    publish(server, "counted", *map(str, range(3000)))
    wait_figure(page, "Number(text) > 100")
    page.wait_text(delivered, "^0$")
    server.restart()
    with contextlib.ExitStack() as streams:
        for _ in range(4):
            streams.enter_context(SSEClient(server.port, "/events/counted"))
        page.wait_text("#workers", str(server.worker_pids()[0]))
        page.wait_text(delivered, r"\d")
    assert [text for text in page.page.evaluate("figures") if text.startswith(("-", "−"))] == []


def test_no_rate_is_computed_across_two_pods_with_the_same_process_id(
    open_page: Callable[..., tuple[Page, Problems]], served: Server
) -> None:
    """In a container the worker's process id is always the same."""

    def body(*delivered: int) -> str:
        blocks = ["retry: 200\n\n"]
        for at, number in enumerate(delivered):
            members = {"pid": 7, "at": at * 1000 + delivered[0], "log": "redis", "tail_age": 0.1, "streams": {}}
            counts = {"delivered": number, "published": number, "opened": number}
            blocks.append(f"event: stats\ndata: {json.dumps(members | counts)}\n\n")
        return "".join(blocks)

    bodies = iter([body(0, 20, 40), body(5_000_000, 5_000_030, 5_000_060), body()])
    page = Console(*open_page())
    page.page.route(
        "**/events/_stats",
        lambda route: route.fulfill(body=next(bodies, ""), headers={"Content-Type": "text/event-stream"}),
    )
    page.page.add_init_script(f"addEventListener('DOMContentLoaded', {RECORD})")
    page.page.goto(served.url("/"))
    page.wait_text("#service-note", "no report")
    wait_figure(page, "text === '30'")
    assert {text for text in page.page.evaluate("figures") if text.isdecimal()} <= {"0", "20", "30"}


def report(at: float, delivered: int, source: str = "7") -> dict[str, Any]:
    return {"at": at * 1000, "delivered": delivered, "from": source}


@pytest.mark.parametrize(
    ("reports", "rates"),
    [
        pytest.param([report(1, 0), report(2, 10), report(3, 30)], [None, 10, 15], id="over all reports"),
        pytest.param([report(1, 9000), report(2, 10), report(3, 20)], [None, None, 10], id="a restart"),
        pytest.param([report(1, 0), report(2, 9000, "8"), report(3, 9010, "8")], [None, None, 10], id="another worker"),
        pytest.param([report(2, 0), report(2, 5), report(1, 9)], [None, None, None], id="the same or an earlier time"),
        pytest.param(
            [report(1, 0), report(2, 10), report(3, 20), report(4, 30), report(5, 130)], [None, 10, 10, 10, 40],
            id="only over the last reports",
        ),
    ],
)
def test_a_rate_is_computed_over_reports_that_continue_each_other(console: Opens, reports: list[dict[str, Any]], rates: list[float | None]) -> None:
    found = console().modules(
        f"""async (load) => {{
            const {{ Rates }} = await load("rates.js");
            const made = new Rates(["delivered"]);
            return {json.dumps(reports)}.map((one) => made.add(one).delivered);
        }}"""
    )
    assert found == rates


def test_rates_begin_again_after_a_lost_connection(console: Opens) -> None:
    found = console().modules(
        """async (load) => {
            const { Rates } = await load("rates.js");
            const made = new Rates(["delivered"]);
            made.add({ at: 1000, delivered: 10, from: "7" });
            made.forget();
            return made.add({ at: 2000, delivered: 9000, from: "7" }).delivered;
        }"""
    )
    assert found is None


def test_a_figure_is_the_worst_of_the_table(console: Opens, start_server: StartServer) -> None:
    server = start_server(WEB_CONCURRENCY=2)
    page = console(where=server)
    page["#workers .state"].nth(1).wait_for()

    def milliseconds(text: str) -> float:
        number, unit = text.split()
        return float(number) * {"µs": 0.001, "ms": 1, "s": 1000}[unit]

    for _ in range(5):
        figures, cells = page.page.evaluate(
            """() => [".value span", "td:nth-child(n+4)"].map((selector) =>
                [...document.querySelectorAll(`.service ${selector}`)].map((made) => made.textContent))"""
        )
        canaries, lags = cells[::2], cells[1::2]
        assert figures[4:] == [max(canaries, key=milliseconds), max(lags, key=milliseconds)]
        page.page.wait_for_timeout(300)


def test_the_timeline_shows_a_minute_of_many_events(console: Opens) -> None:
    filled, slots, outside = console().modules(
        """async (load) => {
            const { Timeline } = await load("timeline.js");
            const canvas = document.createElement("canvas");
            document.body.append(canvas);
            const made = new Timeline(canvas);
            const end = Date.now();
            for (let ago = 59_900; ago >= 0; ago -= 5) made.mark(end - ago, false);
            made.mark(end - 3_600_000, true);
            made.mark(end + 3_600_000, true);
            made.draw();
            const { data } = canvas.getContext("2d").getImageData(0, Math.floor(canvas.height * 0.6), canvas.width, 1);
            let filled = 0;
            for (let i = 3; i < data.length; i += 4) filled += data[i] > 0;
            const outside = [...made.slots.keys()].filter((number) => Math.abs(number * 250 - end) > 61_000);
            return [filled / canvas.width, made.slots.size, outside];
        }"""
    )
    assert filled > 0.9
    assert slots <= 242 and outside == []
