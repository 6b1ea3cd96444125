"""Runs in an app's views and over HTTP: answers, rights, errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client, TestResponse

from sse import SSE, RunActive, RunError, RunsFull
from sse.extension import AppSSE
from tests.sse.auth.fakes import PUBLISH_KEY, SECRET, bearer, claims, hs256
from tests.support.sse_parser import EventParser, StreamEvent
from tests.support.wait import eventually

UNKNOWN = f"orders~{'0' * 32}"


class Site:
    """An app with a run that goes on until ``go`` is set, and what its client sees."""

    def __init__(self, closing: ExitStack, **config: Any) -> None:
        self.app = flask.Flask("runs")
        self.app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", "SSE_RUN_FLUSH": 5, **config})
        self.sse = SSE(self.app)
        closing.callback(self.sse.stop)
        self.go = threading.Event()
        closing.callback(self.go.set)
        self.client = Client(self.app, flask.Response)
        part: AppSSE = self.app.extensions["sse"]
        self.part = part
        assert part.hub.wait_ready(5)

        @self.app.post("/ask/<channel>")
        def ask(channel: str) -> flask.Response:
            key = flask.request.args.get("key")
            plain = flask.request.args.get("plain") == "1"
            return self.sse.run(channel, self.words(), key=key).response(plain=plain)

    def words(self) -> Iterator[str]:
        yield flask.current_app.name
        while not self.go.wait(0.01):
            yield "tick"

    def run(self, channel: str = "orders", **options: Any) -> str:
        with self.app.app_context():
            return self.sse.run(channel, self.words(), **options).id


def blocks(answer: TestResponse, until: Callable[[StreamEvent], bool] | None = None) -> list[StreamEvent]:
    """Read a stream until a block, or to its end."""
    parser, found = EventParser(), []
    for chunk in answer.iter_encoded():
        for block in parser.feed(chunk):
            found.append(block)
            if until is not None and until(block):
                answer.close()
                return found
    answer.close()
    return found


def token(**lists: list[str]) -> dict[str, str]:
    return bearer(hs256({**claims(), "sse": lists}))


def test_a_view_answers_with_its_runs_stream(closing: ExitStack) -> None:
    site = Site(closing)
    site.go.set()
    answer = site.client.post("/ask/orders")
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    found = blocks(answer)
    assert [block.event for block in found] == ["heartbeat", None, "run", "stream-end", None]
    assert found[1].data == "runs", "the iterable has the app's context"
    assert json.loads(found[2].data or "")["state"] == "done"


def test_a_client_that_comes_back_after_the_end_gets_204(closing: ExitStack) -> None:
    site = Site(closing)
    site.go.set()
    parser = EventParser()
    answer = site.client.post("/ask/orders?key=k")
    for chunk in answer.iter_encoded():
        parser.feed(chunk)
    answer.close()
    again = site.client.post("/ask/orders?key=k", headers={"Last-Event-ID": parser.last_event_id})
    assert (again.status_code, again.data) == (204, b"")
    whole = blocks(site.client.post("/ask/orders?key=k"))
    assert [block.data for block in whole if block.event is None and block.data] == ["runs"]


def test_a_plain_stream_has_only_what_the_run_yields(closing: ExitStack) -> None:
    site = Site(closing)
    site.go.set()
    found = blocks(site.client.post("/ask/orders?plain=1"))
    assert [block.data for block in found if block.data is not None] == ["runs"]


def test_a_views_own_since_parameter_is_no_cursor(closing: ExitStack) -> None:
    site = Site(closing)
    site.go.set()
    found = blocks(site.client.post("/ask/orders?since=9999999999999"))
    assert found[1].data == "runs"


def test_a_head_request_of_a_run_is_no_stream(closing: ExitStack) -> None:
    site = Site(closing)

    @site.app.get("/watch")
    def watch() -> flask.Response:
        return site.sse.run("watched", ["x"]).response()

    answer = site.client.head("/watch")
    assert (answer.status_code, answer.mimetype, answer.data) == (200, "text/event-stream", b"")


def test_a_run_is_shown_listed_and_stopped(closing: ExitStack) -> None:
    site = Site(closing)
    run = site.run()
    shown = site.client.get(f"/runs/{run}")
    assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "no-store")
    info = shown.get_json()
    assert info.keys() == {"run", "channel", "state", "started", "events", "worker"}
    assert (info["run"], info["channel"], info["state"]) == (run, "orders", "running")
    (listed,) = site.client.get("/runs?channel=orders").get_json()["runs"]
    assert listed["run"] == run
    stopped = site.client.post(f"/runs/{run}/stop")
    assert (stopped.status_code, stopped.get_json()["run"]) == (202, run)
    eventually(lambda: site.client.get(f"/runs/{run}").get_json()["state"] == "stopped")
    again = site.client.post(f"/runs/{run}/stop")
    assert (again.status_code, again.get_json()["state"]) == (200, "stopped")


def test_a_handle_knows_its_run_and_stops_it(closing: ExitStack) -> None:
    site = Site(closing)
    with site.app.app_context():
        run = site.sse.run("orders", site.words())
        assert (run.channel, run.state, run.info()["run"]) == ("orders", "running", run.id)
        found = site.sse.find_run(run.id)
        assert found is not None and found.id == run.id
        assert site.sse.find_run(UNKNOWN) is None and site.sse.find_run("nothing") is None
        found.stop()
        eventually(lambda: run.state == "stopped")
        site.sse.stop_run(UNKNOWN)


REFUSED = [
    pytest.param("/runs", 400, id="no-channel"),
    pytest.param("/runs?channel=_control", 400, id="a-reserved-channel"),
    pytest.param("/runs?channel=a&channel=b", 400, id="two-channels"),
    pytest.param("/runs?channel=orders:*", 400, id="a-pattern"),
    pytest.param(f"/runs/{UNKNOWN}", 404, id="an-unknown-run"),
    pytest.param("/runs/orders", 404, id="no-id"),
    pytest.param("/runs/orders~" + "x" * 32, 404, id="no-hex"),
    pytest.param("/runs/orders~" + "٣" * 32, 404, id="digits-of-another-script"),
]


@pytest.mark.parametrize(("path", "status"), REFUSED)
def test_what_is_no_run_is_refused(path: str, status: int, closing: ExitStack) -> None:
    answer = Site(closing).client.get(path)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


def test_an_empty_list_is_no_error(closing: ExitStack) -> None:
    assert Site(closing).client.get("/runs?channel=orders").get_json() == {"runs": []}


RIGHTS = [
    pytest.param({"subscribe": ["orders"]}, 200, 403, id="a-reader"),
    pytest.param({"publish": ["orders"]}, 403, 202, id="a-publisher"),
    pytest.param({"subscribe": ["other"], "publish": ["other"]}, 403, 403, id="of-another-channel"),
    pytest.param({"subscribe": ["ord*"], "publish": ["ord*"]}, 200, 202, id="by-a-pattern"),
]


@pytest.mark.parametrize(("lists", "reading", "stopping"), RIGHTS)
def test_who_may_see_and_stop_a_run(
    lists: dict[str, list[str]], reading: int, stopping: int, closing: ExitStack
) -> None:
    site = Site(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    run = site.run()
    headers = token(**lists)
    assert site.client.get(f"/runs/{run}", headers=headers).status_code == reading
    assert site.client.get("/runs?channel=orders", headers=headers).status_code == reading
    assert site.client.post(f"/runs/{run}/stop", headers=headers).status_code == stopping
    assert site.client.post(f"/runs/{run}/stop").status_code == 401


def test_nothing_is_told_of_a_run_to_those_who_may_not_read_it(closing: ExitStack) -> None:
    """Neither that there is one, nor that there is none."""
    site = Site(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    run = site.run()
    headers = token(subscribe=["other"], publish=["other"])
    for path in (f"/runs/{run}", f"/runs/{UNKNOWN}"):
        assert site.client.get(path, headers=headers).status_code == 403
        assert site.client.post(f"{path}/stop", headers=headers).status_code == 403


def test_a_token_in_the_url_may_not_stop_a_run(closing: ExitStack) -> None:
    site = Site(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    run = site.run()
    secret = hs256({**claims(), "sse": {"publish": ["orders"], "subscribe": ["orders"]}})
    assert site.client.get(f"/runs/{run}?access_token={secret}").status_code == 200
    assert site.client.post(f"/runs/{run}/stop?access_token={secret}").status_code == 401


def test_a_publish_key_may_stop_a_run(closing: ExitStack) -> None:
    site = Site(closing, SSE_AUTH="auto", SSE_PUBLISH_KEY=PUBLISH_KEY)
    run = site.run()
    assert site.client.post(f"/runs/{run}/stop").status_code == 401
    assert site.client.post(f"/runs/{run}/stop", headers=bearer(PUBLISH_KEY)).status_code == 202


def test_the_app_is_asked_who_may(closing: ExitStack) -> None:
    site = Site(closing)
    asked = []

    @site.sse.authorize
    def may(request: flask.Request, action: str, channels: tuple[str, ...]) -> bool:
        asked.append((action, channels))
        return action == "subscribe"

    run = site.run()
    assert site.client.get(f"/runs/{run}").status_code == 200
    assert site.client.get("/runs?channel=orders").status_code == 200
    assert site.client.post(f"/runs/{run}/stop").status_code == 403
    assert asked == [("subscribe", ("orders",)), ("subscribe", ("orders",)), ("publish", ("orders",))]


def test_a_view_that_catches_nothing_answers_409_and_503(closing: ExitStack) -> None:
    site = Site(closing)
    first = site.run()
    busy = site.client.post("/ask/orders")
    assert (busy.status_code, busy.get_json()["run"]) == (409, first)
    small = Site(closing, SSE_MAX_RUNS=1)
    small.run()
    full = small.client.post("/ask/other")
    assert (full.status_code, full.headers["Retry-After"]) == (503, "1")


def test_a_view_may_catch_what_run_raises(closing: ExitStack) -> None:
    site = Site(closing)
    assert (site.sse.RunActive, site.sse.RunsFull, site.sse.RunError) == (RunActive, RunsFull, RunError)
    site.run()
    with site.app.app_context(), pytest.raises(RunActive):
        site.sse.run("orders", ["x"])


def test_erasing_a_channel_forgets_its_ended_runs(closing: ExitStack) -> None:
    site = Site(closing)
    site.go.set()
    run = site.run(key="k")
    eventually(lambda: site.client.get(f"/runs/{run}").get_json()["state"] == "done")
    assert site.client.delete("/events/orders").status_code == 200
    assert site.client.get(f"/runs/{run}").status_code == 404
    site.go.clear()
    assert site.run(key="k") == run, "the same key, and a new run"
    assert site.client.get(f"/runs/{run}").get_json()["state"] == "running"
    assert site.client.delete("/events/orders").status_code == 200
    assert site.client.get(f"/runs/{run}").get_json()["state"] == "running", "one that goes on is not forgotten"


def test_preflights_name_what_is_allowed(closing: ExitStack) -> None:
    site = Site(closing)
    for path, allow in (("/runs", "GET, HEAD, OPTIONS"), ("/runs/x", "GET, HEAD, OPTIONS"), ("/runs/x/stop", "OPTIONS, POST")):
        answer = site.client.options(path)
        assert (answer.status_code, answer.headers["Allow"]) == (204, allow)
    assert site.client.get("/runs/x/stop").status_code == 405


def test_an_app_that_stops_ends_its_runs(closing: ExitStack) -> None:
    site = Site(closing)
    site.run()
    assert site.part.run_count == 1
    site.sse.stop()
    assert site.part.run_count == 0
