"""``sse.testing``: what tests of an app use. None of it may wait for ever, or leave anything behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest

from health import Health
from sse import SSE
from sse.testing import StreamEnded, captured, in_memory, open_stream, stopping
from tests.support.wait import eventually


@pytest.fixture
def app() -> Iterator[flask.Flask]:
    app = flask.Flask("shop")
    app.config.update(SSE_LOG="memory:", SECRET_KEY="x")
    sse = SSE(app)
    Health(app)

    @app.post("/orders/<item>")
    def order(item: str) -> str:
        return sse.publish("orders", {"item": item}, event="created")

    @app.get("/count/<int:count>")
    def count(count: int) -> flask.Response:
        return sse.response(str(number) for number in range(count))

    @app.get("/silent")
    def silent() -> flask.Response:
        def wait() -> Iterator[str]:
            while True:
                time.sleep(0.05)
                if flask.request.args.get("never"):
                    yield ""

        return sse.response(wait())

    @app.get("/blocked")
    def blocked() -> str:
        block.wait(20)
        return "late"

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError("a bug")

    block = threading.Event()
    with stopping(app):
        yield app
    block.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "sse-test-stream"], 5)


# ── captured ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_published_meanwhile_is_captured(app: flask.Flask) -> None:
    client = app.test_client()
    client.post("/orders/before")
    with captured(app, "orders") as events:
        assert list(events) == []
        ids = [client.post(f"/orders/{item}").text for item in ("tea", "milk")]
        app.extensions["sse"].publish("others", "not asked for")
        assert [event.json() for event in events] == [{"item": "tea"}, {"item": "milk"}]
    client.post("/orders/after")
    assert [(event.id, event.channel, event.event) for event in events] == [(id, "orders", "created") for id in ids]
    assert events[0].data == '{"item":"tea"}' and len(events) == 2 and events[-1:][0].id == ids[1]


def test_patterns_and_all_channels_can_be_captured_and_markers_are_left_out(app: flask.Flask) -> None:
    sse = app.extensions["sse"]
    with captured(sse, "user:*") as of_users, captured(sse) as everything:
        for channel in ("user:1", "user:2", "orders"):
            sse.publish(channel, channel)
        sse.close("user:1")
    assert [event.channel for event in of_users] == ["user:1", "user:2"]
    assert [event.data for event in everything] == ["user:1", "user:2", "orders"]


def test_events_of_a_thread_are_waited_for_and_no_longer_than_asked(app: flask.Flask) -> None:
    with captured(app, "orders") as events:
        thread = threading.Timer(0.1, app.extensions["sse"].publish, ("orders", "late"))
        thread.start()
        assert [event.data for event in events.wait(1)] == ["late"]
        thread.join()
        with pytest.raises(TimeoutError, match="1 of 2 events were published within 0.05 s: .*late"):
            events.wait(2, timeout=0.05)


def test_more_events_than_a_page_are_captured(app: flask.Flask) -> None:
    with captured(app, "a") as events:
        app.extensions["sse"].publish_batch([{"channel": "a", "data": n} for n in range(2500)])
    assert [event.data for event in events] == [str(n) for n in range(2500)]


def test_an_app_made_at_import_gets_a_log_in_memory_for_a_test(tmp_path: Path) -> None:
    app = flask.Flask("module")
    app.config["SSE_LOG"] = f"sqlite:///{tmp_path}/h.db"
    sse = SSE(app)
    sse.publish("a", "kept")
    for _ in range(2):
        with in_memory(sse), captured(sse, "a") as events:
            sse.publish("a", "only here")
            with open_stream(app.test_client(), "/events/a?since=earliest") as stream:
                assert stream.next().data == "only here"
        assert len(events) == 1
    with stopping(app), open_stream(app.test_client(), "/events/a?since=earliest") as stream:
        assert stream.next().data == "kept"
        with pytest.raises(TimeoutError):
            stream.next(timeout=0.05)


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_is_read_beside_other_requests_and_resumed(app: flask.Flask) -> None:
    client = app.test_client()
    with open_stream(client, "/events/orders") as stream:
        assert (stream.status, stream.headers["Content-Type"]) == (200, "text/event-stream")
        ids = [client.post(f"/orders/{item}").text for item in ("tea", "milk", "rice")]
        assert [(event.id, event.event) for event in stream.take(2)] == [(id, "created") for id in ids[:2]]
        resume = stream.last_event_id
    with open_stream(client, "/events/orders", last_event_id=resume) as stream:
        assert stream.next().json() == {"item": "rice"}


def test_a_test_that_waits_for_nothing_fails_in_time_and_says_what_came(app: flask.Flask) -> None:
    with open_stream(app.test_client(), "/events/orders", timeout=0.1) as stream:
        app.test_client().post("/orders/tea")
        stream.next(timeout=5)
        with pytest.raises(TimeoutError, match=r"no event from /events/orders within 0.1 s \(status 200, 1 events before\)"):
            stream.next()


def test_a_view_that_does_not_answer_cannot_hang_a_test(app: flask.Flask) -> None:
    with pytest.raises(TimeoutError, match="no answer from /blocked within 0.1 s"):
        open_stream(app.test_client(), "/blocked", timeout=0.1)


def test_a_views_own_stream_is_read_to_its_end(app: flask.Flask) -> None:
    with open_stream(app.test_client(), "/count/3") as stream:
        assert [event.data for event in stream] == ["0", "1", "2"]
        with pytest.raises(StreamEnded, match="/count/3 has ended after 3 events"):
            stream.next()


def test_a_stream_that_is_left_ends_soon(app: flask.Flask) -> None:
    for path in ("/events/orders", "/silent"):
        began = time.monotonic()
        with open_stream(app.test_client(), path):
            pass
        assert time.monotonic() - began < 3
    assert app.extensions["sse"].stats.closed == {"client": 2}


def test_a_refusal_is_no_stream(app: flask.Flask) -> None:
    with open_stream(app.test_client(), "/events/-") as stream:
        assert stream.status == 400
        with pytest.raises(StreamEnded, match=r"answered 400, application/problem\+json"):
            stream.next()


def test_what_a_view_raises_is_raised_in_the_test(app: flask.Flask) -> None:
    app.testing = True
    with pytest.raises(ZeroDivisionError, match="a bug"):
        open_stream(app.test_client(), "/broken")


def test_the_clients_cookies_and_headers_count(app: flask.Flask) -> None:
    sse = app.extensions["sse"]

    @app.get("/login")
    def login() -> str:
        flask.session["user"] = "alice"
        return ""

    @app.get("/mine")
    def mine() -> flask.Response:
        return sse.response([flask.session["user"], flask.request.headers["X-Shop"]])  # type: ignore[no-any-return]

    client = app.test_client()
    client.get("/login")
    with client, open_stream(client, "/mine", headers={"X-Shop": "one"}) as stream:
        assert [event.data for event in stream] == ["alice", "one"]
