"""The fast path answers as Flask does, and is taken only when the answer cannot differ."""

from __future__ import annotations

import io
import itertools
import re
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Request

from health import Health
from sse import SSE
from sse.web.fast_path import FastRequest
from sse.web.plain_app import is_plain
from sse.web.routes import RAISED

ID = re.compile(r"\d{13}-\d+")


def make(closing: ExitStack, **config: Any) -> flask.Flask:
    app = flask.Flask("fast")
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
    closing.callback(SSE(app).stop)
    return app


def client(app: flask.Flask) -> Client:
    """Not Flask's test client, whose requests keep their contexts, and so go through Flask."""
    return Client(app, flask.Response)


def publish(app: flask.Flask, path: str = "/events/orders", **request: Any) -> Any:
    return client(app).post(path, **{"data": "hello", **request})


# ── which apps take it ────────────────────────────────────────────────────────────────────────────────────────


def test_an_app_with_only_routes_of_its_own_is_plain(closing: ExitStack) -> None:
    app = make(closing)
    closing.callback(Health(app).stop)  # its hook has `lets_pass`
    app.register_error_handler(404, lambda error: ("nowhere", 404))
    app.add_url_rule("/other", "other", lambda: "other")
    app.add_url_rule("/<path:rest>", "rest", lambda rest: rest, methods=["POST"])  # less specific than ours
    assert is_plain(app)
    assert publish(app).status_code == 201


def test_flask_refuses_a_hook_after_the_first_publish(closing: ExitStack) -> None:
    app = make(closing)
    assert publish(app).status_code == 201
    with pytest.raises(AssertionError, match="before_request"):
        app.before_request(lambda: None)


def test_publishing_stays_off_the_health_port(closing: ExitStack) -> None:
    for first in ("sse", "health"):
        app = flask.Flask("fast")
        app.config.update(SSE_LOG="memory:", SSE_AUTH="none", HEALTH_PORT=8081)
        for extension in (SSE, Health) if first == "sse" else (Health, SSE):
            closing.callback(extension(app).stop)
        assert is_plain(app)
        assert publish(app, base_url="http://localhost:8081").status_code == 404
        assert publish(app, base_url="http://localhost:8080").status_code == 201


# ── answers are Flask's own ───────────────────────────────────────────────────────────────────────────────────

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "type-and-retry": {"path": "/events/orders?event=created&retry=500"},
    "empty-type": {"path": "/events/orders?event="},
    "bad-retry": {"path": "/events/orders?retry=soon"},
    "query-not-utf-8": {"path": "/events/orders?event=%ff"},
    "line-feed-in-type": {"path": "/events/orders?event=a%0Ab"},
    "body-not-utf-8": {"data": b"\xff"},
    "too-large": {"data": "x" * 100},
    "empty-body": {"data": ""},
    "nul": {"data": "a\0b"},
    "bad-key": {"headers": {"Idempotency-Key": "a b"}},
    "key": {"headers": {"Idempotency-Key": "k"}},
    "last": {"path": "/events/orders?close=1"},
    "close": {"path": "/events/orders?close=1", "data": ""},
    "bad-close": {"path": "/events/orders?close=true"},
    "closed": {"path": "/events/closed"},
    "close-again": {"path": "/events/closed?close=1", "data": ""},
    "reserved-channel": {"path": "/events/_stats"},
    "pattern": {"path": "/events/orders:*"},
    "every-channel": {"path": "/events/*"},
    "bad-channel": {"path": "/events/a%20b"},
    "long-channel": {"path": "/events/" + "a" * 129},
    "slash-in-channel": {"path": "/events/a/b"},
    "encoded-slash": {"path": "/events/a%2Fb"},
    "line-feed-after-channel": {"path": "/events/a%0A"},
    "no-channel": {"path": "/events/"},
    "form-body": {"data": {"a": "b"}},
    "origin": {"headers": {"Origin": "https://page.example"}},
    "foreign-origin": {"headers": {"Origin": "https://other.example"}},
    "refused-with-origin": {"path": "/events/orders?retry=x", "headers": {"Origin": "https://page.example"}},
}


READS: dict[str, dict[str, Any]] = {
    "plain": {},
    "resumed": {"headers": {"Last-Event-ID": "1795635980627-0"}},
    "malformed-cursor": {"headers": {"Last-Event-ID": "x"}},
    "cursor-in-query": {"path": "/events/orders?lastEventId=1795635980627-0"},
    "since": {"path": "/events/orders?since=earliest"},
    "types": {"path": "/events/orders?event=a&event=b"},
    "empty-type": {"path": "/events/orders?event="},
    "query-not-utf-8": {"path": "/events/orders?event=%ff"},
    "accepted": {"headers": {"Accept": "text/html, text/event-stream;q=0.5"}},
    "not-accepted": {"headers": {"Accept": "text/html"}},
    "excluded": {"headers": {"Accept": "*/*, text/event-stream;q=0"}},
    "reserved-channel": {"path": "/events/_secret"},
    "canary": {"path": "/events/_canary"},
    "bad-channel": {"path": "/events/a%20b"},
    "no-channel": {"path": "/events"},
    "two-channels": {"path": "/events?channel=a&channel=b"},
    "two-slashes": {"path": "//events/orders"},
    "origin": {"headers": {"Origin": "https://page.example"}},
    "draining": {"headers": {"X-Test": "draining"}},
    "pattern": {"path": "/events/orders:*"},
    "every-channel": {"path": "/events/*"},
    "reserved-pattern": {"path": "/events/_*"},
    "bad-pattern": {"path": "/events/a*b"},
    "envelope": {"path": "/events/orders?envelope=1"},
    "plain-form": {"path": "/events/orders?plain=1&since=earliest"},
    "bad-envelope": {"path": "/events/orders?envelope=yes"},
    "limit-of-a-stream": {"path": "/events/orders?limit=5&wait=60"},
    "bad-limit": {"path": "/events/orders?limit=1001"},
    "bad-wait": {"path": "/events/orders?wait=61"},
    "history": {"headers": {"Accept": "application/json"}},
    "history-with-a-bad-limit": {"path": "/events/orders?limit=0", "headers": {"Accept": "application/json"}},
    "history-of-several": {"path": "/events?channel=orders&channel=a*", "headers": {"Accept": "application/json"}},
    "head-of-history": {"method": "HEAD", "headers": {"Accept": "application/json"}},
    "closed": {"path": "/events/closed"},
    "closed-and-replayed": {"path": "/events/closed?since=earliest"},
    "erase": {"path": "/events/orders", "method": "DELETE"},
    "list": {"path": "/channels"},
    "head": {"method": "HEAD"},
    "head-of-nothing": {"method": "HEAD", "path": "/events/a%20b"},
}


def read(app: flask.Flask, path: str = "/events/orders", method: str = "GET", **request: Any) -> tuple[Any, ...]:
    """Status, headers and first block of a stream, whose client then leaves."""
    hub = app.extensions["sse"].hub
    hub.admission.draining = "X-Test" in request.get("headers", {})
    answer = client(app).open(path, method=method, **request, buffered=False)
    first = b"".join(itertools.islice(answer.iter_encoded(), 1))
    answer.close()
    assert hub.admission.streams == 0 and not hub.groups
    return answer.status, sorted(answer.headers), re.sub(rb"retry: \d+|\d{13}(-\d+)?", b"N", first)


@pytest.mark.parametrize("name", READS)
def test_a_stream_on_the_fast_path_is_what_flask_answers(name: str, closing: ExitStack) -> None:
    limits = {"SSE_CORS_ORIGINS": "https://page.example"}
    fast, through_flask = make(closing, **limits), make(closing, **limits)
    through_flask.teardown_request(lambda error: None)
    for app in (fast, through_flask):
        app.extensions["sse"].close("closed")
    request = {**READS[name], "headers": {"X-Request-ID": "r-1", **READS[name].get("headers", {})}}
    assert read(fast, **request) == read(through_flask, **request)
    assert fast.extensions["sse"].stats.closed == through_flask.extensions["sse"].stats.closed


@pytest.mark.parametrize("name", REQUESTS)
def test_a_publish_on_the_fast_path_is_answered_as_by_flask(name: str, closing: ExitStack) -> None:
    limits = {"SSE_MAX_EVENT_BYTES": 64, "SSE_CORS_ORIGINS": "https://page.example"}
    fast, through_flask = make(closing, **limits), make(closing, **limits)
    through_flask.teardown_request(lambda error: None)
    assert is_plain(fast) and not is_plain(through_flask)
    for app in (fast, through_flask):
        app.extensions["sse"].close("closed")
    request = {**REQUESTS[name], "headers": {"X-Request-ID": "r-1", **REQUESTS[name].get("headers", {})}}
    answers = [publish(app, **request) for app in (fast, through_flask)]
    ours, theirs = ((a.status, sorted(a.headers), ID.sub("ID", a.text)) for a in answers)
    assert ours == theirs


def test_a_bug_is_answered_and_logged_by_flask(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(closing)

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(app.extensions["sse"], "append", fail)
    assert is_plain(app)
    assert publish(app).status_code == 500
    assert "Exception on /events/orders [POST]" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_refusal_leaves_no_reference_to_its_error(closing: ExitStack) -> None:
    app = make(closing)
    environ = EnvironBuilder("/events/orders?retry=x", method="POST", data="x").get_environ()
    told: list[str] = []
    app(environ, lambda status, headers, exc_info=None: told.append(status))
    # Error, traceback, frame and environ would be a reference cycle.
    assert told[0].startswith("400") and RAISED not in environ


# ── the fast path's request ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="no length"),
        *(pytest.param({"CONTENT_LENGTH": value}, id=repr(value)) for value in ("5", "005", "", "x", "-1", "+5", "٣", "5 ")),
        pytest.param({"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": "chunked"}, id="chunked, and a length"),
        pytest.param({"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": "gzip"}, id="another coding"),
        pytest.param({"QUERY_STRING": "a=%C3%A9&b=%E9"}, id="query"),
        pytest.param({"HTTP_COOKIE": "a=b", "HTTP_ACCEPT": "text/plain;q=0.5", "CONTENT_TYPE": "a/b; c=d"}, id="fields"),
    ],
)
def test_the_fast_request_has_the_attributes_of_werkzeugs(fields: dict[str, str], terminated: bool) -> None:
    def environ() -> dict[str, Any]:
        made = EnvironBuilder("/events/orders", method="POST").get_environ()
        for name in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            made.pop(name, None)
        made["wsgi.input"] = io.BytesIO(b"hello, world")
        return {**made, **({"wsgi.input_terminated": True} if terminated else {}), **fields}

    ours, theirs = FastRequest(environ()), Request(environ(), populate_request=False)
    names = ["content_length", "query_string", "method", "path", "args", "cookies", "accept_mimetypes", "mimetype"]
    names += ["remote_addr", "scheme", "server", "root_path", "shallow", "url"]
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
        assert getattr(FastRequest(environ()), name) == getattr(theirs, name), f"{name}, asked for first"
    assert dict(ours.headers) == dict(theirs.headers)
    assert ours.stream.read() == theirs.stream.read()
    with pytest.raises(AttributeError, match="no_such_thing"):
        ours.no_such_thing  # noqa: B018
