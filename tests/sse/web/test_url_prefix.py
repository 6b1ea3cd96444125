"""SSE_URL_PREFIX: an app that has its own ``/events``, ``/channels``, ``/streams`` and ``/runs``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import flask
import pytest

from health import Health
from sse import SSE
from sse.serve.app import make_app
from sse.settings import Settings, SettingsError
from sse.testing import stopping
from sse.web.fast_path import FastPath
from sse.web.openapi import describe
from sse.web.places import placed
from tests.support.wait import eventually

PREFIX = "/live/events"
OWN = ("/events", "/events/<name>", "/channels", "/streams", "/runs", "/runs/<name>")


def make(prefix: str, **config: Any) -> flask.Flask:
    app = flask.Flask("prefix", static_folder=None)
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", "SSE_URL_PREFIX": prefix, **config})
    Health(app)
    SSE(app)
    if prefix != "/events":
        for number, rule in enumerate(OWN):
            app.add_url_rule(rule, f"own_{number}", lambda name="": "the app's own", methods=["GET", "POST"])
    return app


@pytest.fixture(params=[PREFIX, "/sse", "/events"])
def app(request: pytest.FixtureRequest) -> Iterator[flask.Flask]:
    with stopping(make(request.param)) as app:
        yield app


def prefix_of(app: flask.Flask) -> str:
    return str(app.config["SSE_URL_PREFIX"])


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/events", PREFIX, PREFIX),
        ("/events/<channel>", PREFIX, f"{PREFIX}/<channel>"),
        ("/channels", PREFIX, "/live/channels"),
        ("/runs/<run>/stop", PREFIX, "/live/runs/<run>/stop"),
        ("/streams", "/sse", "/streams"),
        ("/eventsource", PREFIX, "/live/eventsource"),
    ],
)
def test_events_stand_at_the_prefix_and_the_rest_beside_it(path: str, prefix: str, expected: str) -> None:
    assert placed(path, prefix) == expected
    assert placed(path, "/events") == path


def test_all_routes_work_there(app: flask.Flask) -> None:
    at, client = prefix_of(app), app.test_client()
    assert client.post(f"{at}/a", data="x").status_code == 201
    batch = {"data": b'{"channel":"a","data":"y"}\n', "content_type": "application/x-ndjson"}
    assert client.post(at, **batch).status_code == 201

    def history() -> list[str]:
        page = client.get(f"{at}/a", headers={"Accept": "application/json"}).get_json()
        return [event["data"] for event in page["events"]]

    eventually(lambda: history() == ["x", "y"])  # the worker's tailer has to read them first
    for path in (f"{at}/a", f"{at}?channel=a"):
        with closing(client.get(path, buffered=False)) as answer:
            assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert [one["channel"] for one in client.get(placed("/channels", at)).get_json()["channels"]] == ["a"]
    assert client.get(placed("/runs", at) + "?channel=a").get_json() == {"runs": []}
    assert client.delete(placed("/streams", at) + "?channel=a").status_code == 202
    assert client.delete(f"{at}/a").get_json()["erased"] == 2


def test_each_route_tells_its_methods(app: flask.Flask) -> None:
    at, client = prefix_of(app), app.test_client()
    allowed = {path: client.options(placed(path, at)).headers["Allow"] for path in ("/events", "/events/a", "/channels", "/streams", "/runs")}  # fmt: skip
    assert allowed == {
        "/events": "GET, HEAD, OPTIONS, POST",
        "/events/a": "DELETE, GET, HEAD, OPTIONS, POST",
        "/channels": "GET, HEAD, OPTIONS",
        "/streams": "DELETE, OPTIONS",
        "/runs": "GET, HEAD, OPTIONS",
    }


def test_the_apps_own_routes_of_these_names_are_its_own() -> None:
    with stopping(make(PREFIX)) as app:
        client = app.test_client()
        client.post(f"{PREFIX}/a", data="x")  # the fast path has been taken
        for rule in OWN:
            path = rule.replace("<name>", "a")
            for answer in (client.get(path), client.post(path, data="x")):
                assert (answer.status_code, answer.text) == (200, "the app's own")
        assert app.extensions["sse"].stats.published == 1
        assert client.post("/live/a", data="x").status_code == 404


def test_the_fast_path_is_taken_there_and_nowhere_else(app: flask.Flask) -> None:
    at, client = prefix_of(app), app.test_client()
    fast = app.wsgi_app
    assert isinstance(fast, FastPath)
    taken: list[str] = []
    answer = fast._answer
    fast._answer = lambda environ, start, channel: taken.append(channel) or answer(environ, start, channel)  # type: ignore[assignment,func-returns-value,method-assign]
    for path in (f"{at}/a", f"{at}/a/b", at, f"{at}x/a", "/elsewhere/a", "/a"):
        client.post(path, data="x")
    assert taken == ["a"]


def test_an_apps_rule_for_the_same_path_wins_on_the_fast_path_as_in_flask() -> None:
    with stopping(make(PREFIX)) as app:
        app.add_url_rule(f"{PREFIX}/mine", "mine", lambda: "the app's own", methods=["POST"])
        client = app.test_client()
        assert client.post(f"{PREFIX}/a", data="x").status_code == 201
        assert client.post(f"{PREFIX}/mine", data="x").text == "the app's own"


def test_healths_port_has_neither_prefix() -> None:
    with stopping(make(PREFIX, HEALTH_PORT=8081)) as app:
        client = app.test_client()
        on_health = {"environ_overrides": {"SERVER_PORT": "8081"}}
        assert client.post(f"{PREFIX}/a", data="x").status_code == 201
        for path in (f"{PREFIX}/a", "/live/channels", "/events/a"):
            assert client.get(path, **on_health).status_code == 404
        assert client.post(f"{PREFIX}/a", data="x", **on_health).status_code == 404
        assert client.get("/healthz", **on_health).status_code == 200


def test_the_services_description_and_console_know_it() -> None:
    settings = Settings.from_mapping({"SSE_LOG": "memory:", "SSE_URL_PREFIX": PREFIX})
    assert {PREFIX, f"{PREFIX}/{{channel}}", "/live/channels", "/live/streams"} <= set(describe(settings)["paths"])
    assert not [path for path in describe(settings)["paths"] if not path.startswith("/live/")]

    class Probes:
        def report(self) -> dict[str, Any]:
            return {}

    with stopping(make_app(settings, lambda app, settings: Probes())) as app:
        page = app.test_client().get("/")
        assert '<meta name="events" content="./live/events">' in page.text
        again = app.test_client().get("/", headers={"If-None-Match": page.headers["ETag"]})
        assert again.status_code == 304


@pytest.mark.parametrize(
    "value",
    ["events", "/", "/events/", "//events", "/a//b", "/a b", "/é", "/a%20b", "/<channel>", "/a?b", "/a/../b", "/.", "/healthz",
     "/metrics/x", "/console", "/live/channels", "/live/runs", "/streams"],
)  # fmt: skip
def test_a_prefix_that_could_be_misread_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="SSE_URL_PREFIX"):
        Settings.from_mapping({"SSE_URL_PREFIX": value})
