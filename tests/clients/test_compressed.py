"""Other people's decompressors: each event is read before the next is published, and a clean end is no error for them.

Their event parsers are in test_clients.py, whose streams are compressed, too, for all clients that ask for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.kinds import Go
from tests.support.browser import chromium, page_of
from tests.support.firefox import firefox
from tests.support.programs import require_program
from tests.support.server import Server
from tests.support.wait import eventually

REQUESTS = """
import sys, requests
with requests.get(sys.argv[1], stream=True, timeout=(5, 30)) as answer:
    assert answer.headers["Content-Encoding"] == "gzip"
    for piece in answer.iter_content(chunk_size=None):
        print(piece.decode(), flush=True)
"""
READ = """
    const answer = await fetch(url);
    if (answer.headers.get("content-encoding") !== "gzip") throw new Error("not compressed");
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        take(decoder.decode(value, { stream: true }));
    }
"""
NODE = f"const url = process.argv[1], take = (text) => process.stdout.write(text);(async () => {{ {READ} }})()"
PAGE = f"""() => {{
    window.text = ""; window.ended = "";
    const url = "/events/CHANNEL", take = (text) => window.text += text;
    (async () => {{ {READ} }})().then(() => window.ended = "clean", (error) => window.ended = `${{error}}`);
}}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(SSE_HEARTBEAT=600) as running:
        yield running


def go(url: str, folder: Path) -> list[str]:
    client = Go(folder)
    client.need()
    return [str(client._binary), "go", url, "once"]


PROGRAMS: dict[str, Callable[[str, Path], list[str]]] = {
    "curl": lambda url, _: [require_program("curl", "curl"), "-sfN", "--compressed", url],
    "requests": lambda url, _: [sys.executable, "-c", REQUESTS, url],
    "node": lambda url, _: [require_program("node", "nodejs"), "-e", NODE, url],
    "go": go,
}


def play(server: Server, channel: str, seen: Callable[[], str]) -> None:
    """Publish events one by one, each when the one before was seen; then close the channel."""
    eventually(lambda: server.request("GET", f"/channels?prefix={channel}").status == 200 and "retry" in seen(), 20)
    for number in range(30):
        data = json.dumps({"number": number, "text": "something that is often the same"})
        server.publish(channel, data)
        eventually(lambda data=data: data.strip("{}") in seen().replace("\\", ""), 10, lambda: seen()[-500:])
    server.publish(channel, "the last", "?close=1")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_reads_each_event_at_once_and_ends_well(server: Server, tmp_path: Path, name: str) -> None:
    command = PROGRAMS[name](server.url(f"/events/{name}"), tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        got = bytearray(b"retry" if name == "go" else b"")  # which prints no opening

        def read() -> None:
            assert process.stdout is not None
            while piece := process.stdout.read(65536):
                got.extend(piece)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            if name == "go":
                eventually(lambda: b"heartbeat" in got, 20)
            play(server, name, got.decode)
            assert process.wait(10) == 0, process.stderr and process.stderr.read()
            reader.join(5)
            assert b"the last" in got
        finally:
            process.kill()


def in_page(server: Server, channel: str, page: Any) -> None:
    page.goto(server.url("/"))
    page.evaluate(PAGE.replace("CHANNEL", channel))
    play(server, channel, lambda: str(page.evaluate("window.text")))
    eventually(lambda: page.evaluate("window.ended"), 10)
    assert page.evaluate("window.ended") == "clean"
    assert "the last" in page.evaluate("window.text")


def test_chromium_reads_each_event_at_once_and_ends_well(server: Server) -> None:
    with chromium() as browser, page_of(browser) as (page, problems):
        problems.allowed = ["Failed to load resource"]  # an icon
        in_page(server, "chromium", page)


def test_firefox_reads_each_event_at_once_and_ends_well(server: Server) -> None:
    with firefox() as page:
        in_page(server, "firefox", page)
