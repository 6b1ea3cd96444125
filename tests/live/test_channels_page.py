"""docs/channels.md: each of its commands does what the page says, typed in its order on a fresh log; and so does its
code in an app."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client

from sse import SSE
from sse.log.retain import parse_rules
from sse.settings import Settings
from tests.live.test_readme import Terminal, blocks, section
from tests.support.server import ROOT, Server
from tests.support.sse_parser import StreamEvent

PAGE = (ROOT / "docs" / "channels.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with Server() as server:
        yield Terminal(server, tmp_path_factory.mktemp("clone"))


def commands(title: str) -> list[str]:
    """Return the lines of a section's commands."""
    return [line for block in blocks(section(PAGE, title)) for line in block.splitlines()]


def shown(title: str) -> list[str]:
    """Return the samples of output in a section."""
    return re.findall(r"^```\n(.*?)^```$", section(PAGE, title), re.MULTILINE | re.DOTALL)


def typed(terminal: Terminal, command: str) -> Any:
    return json.loads(terminal.type(command))


def data(events: list[StreamEvent]) -> list[str | None]:
    return [event.data for event in events if event.event != "stream-reset"]


def test_patterns(terminal: Terminal) -> None:
    publish, other, by_path, by_query, envelope, plain = commands("Many channels in one stream")
    assert typed(terminal, publish)["channel"] == "orders:eu" and typed(terminal, other)["channel"] == "orders:us"
    for command in (by_path, by_query):
        assert data(terminal.stream(command)) == ['{"item":1}', '{"item":2}']
    first = terminal.stream(envelope)[0]
    (sample,) = shown("Many channels in one stream")
    ids = r"\d{13}-\d+"
    assert first.data is not None
    assert re.sub(ids, "ID", first.data) == re.sub(ids, "ID", sample.rpartition("data: ")[2].strip())
    assert first.event == "created"
    events = [block for block in terminal.type(plain).split("\n\n") if "\ndata:" in f"\n{block}"]
    assert [block.rpartition("data: ")[2] for block in events] == ['{"item":1}', '{"item":2}']


def test_an_end(terminal: Terminal) -> None:
    close, replay, again, batch = commands("An end")
    assert typed(terminal, close)["channel"] == "report:7"
    done, end = terminal.stream(replay)
    assert (done.event, done.data) == ("done", '{"pages":3}')
    assert (end.event, end.data) == ("stream-end", '{"channel":"report:7"}')
    assert terminal.type(again).startswith("HTTP/1.1 204 ")
    refused = json.loads(terminal.type("curl -d more localhost:8080/events/report:7"))
    assert refused["status"] == 409 and refused["title"] == "the channel is closed"
    assert len(typed(terminal, batch)["ids"]) == 2
    assert typed(terminal, "curl -d more localhost:8080/events/report:9")["status"] == 409


def test_retention() -> None:
    (command,) = commands("How long events are kept")
    (rules,) = re.findall(r"SSE_RETAIN='([^']*)' make run", command)
    assert Settings.from_mapping({"SSE_RETAIN": rules}).sse_retain == tuple(rules.split(","))
    assert [rule.pattern for rule in parse_rules(rules.split(","))] == ["audit:*", "cursor:*", "orders"]


def test_erasing(terminal: Terminal) -> None:
    (command,) = commands("Erase")
    (sample,) = shown("Erase")
    assert json.loads(sample)["erased"] == 1
    first, second = typed(terminal, command), typed(terminal, command)
    assert first.keys() == json.loads(sample).keys() and first["erased"] == 1 and second["erased"] == 0
    assert typed(terminal, "curl -d more localhost:8080/events/report:7")["channel"] == "report:7"


def test_the_list(terminal: Terminal) -> None:
    (command,) = commands("What there is, and who listens")
    (sample,) = shown("What there is, and who listens")
    listed = typed(terminal, command)
    assert [channel["channel"] for channel in listed["channels"]] == ["orders:eu", "orders:us"]
    expected = json.loads(sample.replace(", …", ""))
    assert listed["next"] is expected["next"] is None
    stable = ("channel", "events", "bytes", "closed")
    (first,) = expected["channels"]
    assert first.keys() == listed["channels"][0].keys()
    assert [first[key] for key in stable] == [listed["channels"][0][key] for key in stable]


def test_history(terminal: Terminal) -> None:
    (command,) = commands("History without a stream")
    (sample,) = shown("History without a stream")
    page, expected = typed(terminal, command), json.loads(sample)
    assert page.keys() == expected.keys() and page["events"][0].keys() == expected["events"][0].keys()
    assert page["events"][0]["data"] == expected["events"][0]["data"] and len(page["events"]) == 1
    following = typed(terminal, command.replace("limit=1", f"since={page['next']}"))
    assert [event["data"] for event in following["events"]] == ['{"item":2}']


def test_taking_access_back(terminal: Terminal) -> None:
    for command in commands("Taking access back"):
        assert re.fullmatch(r"\d{13}-\d+", typed(terminal, command)["id"])


def test_the_code_works_in_an_app() -> None:
    with ExitStack() as closing:
        try_the_code(closing)


def try_the_code(closing: ExitStack) -> None:
    closes, authorize, disconnect = CODE
    app = flask.Flask("page")
    app.secret_key = "a secret of the app"
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none"})
    sse = SSE(app)
    closing.callback(sse.stop)
    names = {"sse": sse, "session": flask.session}
    for code in (closes, authorize, disconnect):
        exec(code, names)
    assert sse.log.closed(["report:7", "report:8"]).keys() == {"report:7", "report:8"}
    assert [channel.channel for channel in sse.channels("report:")] == ["report:7", "report:8"]
    assert sse.listeners("orders:eu") == 0 and sse.erase("report:7").erased == 1
    app.add_url_rule("/login", "login", lambda: flask.session.update(user="ann") or "")
    client = Client(app, flask.Response)
    answer = {"Accept": "application/json"}
    assert client.get("/events/user:ann", headers=answer).status_code == 403
    client.get("/login")
    assert client.get("/events/user:ann", headers=answer).status_code == 200
    assert client.get("/events/user:*", headers=answer).status_code == 403
    assert client.post("/events/anything", data="x").status_code == 201
