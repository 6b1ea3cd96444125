"""docs/own-app.md: its app runs under each server of its table, and holds what the table says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

PAGE = (ROOT / "docs" / "own-app.md").read_text()
ROWS = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", PAGE, re.MULTILINE))
OURS = "gunicorn -c python:headwater.gunicorn_conf shop:app"


@contextmanager
def running(command: str, folder: Path) -> Iterator[Server]:
    (folder / "shop.py").write_text(re.search(r"^```python\n(# shop\.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
    (folder / "var").mkdir(exist_ok=True)
    server = Server(
        command=("sh", "-c", "exec " + re.sub(r"\b8080\b", '"$PORT"', command.replace(":8080", ':"$PORT"'))),
        cwd=folder,
        PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin",
        PYTHONPATH=f"{ROOT}:{folder}",
        SSE_LOG=None,
        SSE_DRAIN_DELAY=0,
        SSE_DRAIN_WINDOW=0,
    )
    with closing(server):
        server.start(ready=False)

        def answers() -> bool:
            assert server.process.poll() is None, server.log_tail()
            try:
                return bool(server.request("GET", "/healthz", port=server.health_port if command == OURS else server.port).status)
            except OSError:
                return False

        eventually(answers, 20, lambda: f"{command} does not answer:\n{server.log_tail()}")
        yield server


@pytest.mark.parametrize("command", ROWS)
def test_the_app_publishes_under_every_server_and_streams_where_the_table_says_so(command: str, tmp_path: Path) -> None:
    with running(command, tmp_path) as server:
        headers = {"Content-Type": "application/json"}
        if ROWS[command].startswith("none"):
            assert server.request("GET", "/events/orders").status == 503
            assert server.request("POST", "/orders", b'{"item":"tea"}', headers).status == 200
        else:
            with SSEClient(server.port, "/events/orders") as client:
                assert client.next_event().is_opening
                told = server.request("POST", "/orders", b'{"item":"tea"}', headers).json()
                event = client.next_message()
                assert (event.id, event.event, event.data) == (told["event"], "created", '{"item":"tea"}')
        log = server.log_text()
        if limit := re.match(r"at most (\d+) a ", ROWS[command]):
            assert f"a process holds at most {limit[1]} streams" in log
        assert ("docs/own-app.md" in log) == (command != OURS)


def test_the_page_quotes_the_warning_as_it_is(tmp_path: Path) -> None:
    (quoted,) = re.findall(r"^gunicorn's sync worker .*$", PAGE, re.MULTILINE)
    with running("gunicorn -b :8080 shop:app", tmp_path) as server:
        assert server.request("GET", "/events/orders").json()["detail"] == quoted
        assert quoted in server.log_text()
