"""``@sse.authorize``: the app is asked about every request, in Flask's context, and before keys and tokens."""

from __future__ import annotations

import itertools
import json
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client

from sse import SSE, Grant
from tests.sse.auth.fakes import PUBLISH_KEY, SECRET, bearer, claims, hs256

Asked = tuple[str, tuple[str, ...]]

NDJSON = "application/x-ndjson"
CLOSING = b'{"channel":"b","close":true}\n{"channel":"a","data":"1"}'
LINES = b'{"channel":"b","data":"1"}\n{"channel":"a","data":"2"}\n{"channel":"b","data":"3"}\n'

#: Every kind of request, and what the app is asked.
REQUESTS: dict[str, tuple[dict[str, Any], Asked]] = {
    "publish": ({"method": "POST", "path": "/events/a", "data": "x"}, ("publish", ("a",))),
    "batch": (
        {"method": "POST", "path": "/events", "data": LINES, "content_type": "application/x-ndjson"},
        ("publish", ("a", "b")),
    ),
    "stream": ({"path": "/events/a"}, ("subscribe", ("a",))),
    "stream by query": ({"path": "/events?channel=a"}, ("subscribe", ("a",))),
    "several channels": ({"path": "/events?channel=b&channel=a&channel=b"}, ("subscribe", ("b", "a"))),
    "head": ({"method": "HEAD", "path": "/events/a"}, ("subscribe", ("a",))),
    "pattern": ({"path": "/events/a*"}, ("subscribe", ("a*",))),
    "names and patterns": ({"path": "/events?channel=a*&channel=a&channel=b:*"}, ("subscribe", ("a*", "a", "b:*"))),
    "history": ({"path": "/events/a", "headers": {"Accept": "application/json"}}, ("subscribe", ("a",))),
    "closing": ({"method": "POST", "path": "/events?", "data": CLOSING, "content_type": NDJSON}, ("publish", ("a", "b"))),
    "list": ({"path": "/channels?prefix=a"}, ("manage", ("a*",))),
    "erase": ({"method": "DELETE", "path": "/events/a"}, ("manage", ("a",))),
    "end streams": ({"method": "DELETE", "path": "/streams?channel=a:*"}, ("manage", ("a:*",))),
    "end a subject's": ({"method": "DELETE", "path": "/streams?subject=x&channel=a"}, ("manage", ("*",))),
}
#: 409: nothing more can be published to a channel that is closed, but it was allowed.
ALLOWED = (200, 201, 202, 409)
#: Whoever may subscribe may list, too, so that is asked then.
ASKED_AGAIN = {"list": [("subscribe", ("a*",))]}


class Asking:
    """An app whose function notes what it was asked, and answers as it is told."""

    def __init__(self, closing: ExitStack, **config: Any) -> None:
        self.asked: list[Asked] = []
        self.answer: Any = True
        app = flask.Flask("asking")
        app.config.update({"SSE_LOG": "memory:", "SECRET_KEY": "k" * 32, **config})
        self.sse = SSE(app)
        closing.callback(self.sse.stop)
        self.client = Client(app, flask.Response)

        @self.sse.authorize
        def may(request: flask.Request, action: str, channels: tuple[str, ...]) -> Any:
            assert request.path == flask.request.path and flask.has_request_context()
            self.asked.append((action, channels))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer(request) if callable(self.answer) else self.answer

    def status(self, path: str, credentials: Any = (), **request: Any) -> int:
        """The answer's status; of a stream, once its first block was sent. credentials: further headers."""
        request["headers"] = {**request.get("headers", {}), **dict(credentials)}
        answer = self.client.open(path, buffered=False, **request)
        list(itertools.islice(answer.iter_encoded(), 1))
        answer.close()
        return int(answer.status_code)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_app_is_asked_once_with_all_channels_of_the_request(name: str, closing: ExitStack) -> None:
    app = Asking(closing)
    request, expected = REQUESTS[name]
    for _ in range(2):  # the second request may find a route that is known
        assert app.status(**request) in ALLOWED
    assert app.asked == [expected] * 2
    app.answer = False
    assert app.status(**request) == 403
    assert app.asked[2:] == [expected, *ASKED_AGAIN.get(name, [])]


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (False, 403),
        (RuntimeError("the database is away"), 500),
        (PermissionError(), 500),
        ("yes", 500),
        (1, 500),
        (lambda request: Grant(expires_in=-1), 500),
        (lambda request: flask.abort(401), 500),
    ],
    ids=["False", "an error", "another error", "text", "1", "a bad grant", "abort"],
)
def test_a_refusal_and_a_failure_let_nobody_in(
    name: str, answer: Any, status: int, closing: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    app = Asking(closing, SSE_AUTH="none")
    app.answer = answer
    assert app.status(**REQUESTS[name][0]) == status
    assert app.sse.stats.published == app.sse.stats.opened == 0
    assert ("sse.authorize failed" in caplog.text) == (status == 500)
    if REQUESTS[name][1][0] == "publish":
        assert app.sse.stats.publishes_refused == {"app" if status == 403 else "error": 1}


def test_the_apps_error_is_not_told_to_the_client(closing: ExitStack) -> None:
    app = Asking(closing)
    app.answer = RuntimeError("postgresql://user:secret@db")
    answer = app.client.get("/events/a")
    assert answer.mimetype == "application/problem+json" and b"secret" not in answer.data
    assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize("name", REQUESTS)
def test_true_needs_no_key_and_none_asks_for_it(name: str, closing: ExitStack) -> None:
    app = Asking(closing, SSE_PUBLISH_KEY=PUBLISH_KEY, SSE_JWT_KEY=SECRET)
    request = REQUESTS[name][0]
    assert app.status(**request) in ALLOWED
    app.answer = None
    assert app.status(**request) == 401
    wide = {"publish": ["a", "b"], "subscribe": ["a*", "b*"], "manage": ["*"]}
    assert app.status(**request, credentials=bearer(hs256({**claims(), "sse": wide}))) in ALLOWED
    narrow = {"publish": ["x"], "subscribe": ["x"], "manage": ["x"]}
    assert app.status(**request, credentials=bearer(hs256({**claims(), "sse": narrow}))) == 403


@pytest.mark.parametrize("path", ["/events/_control", "/events/_x", "/events?channel=a&channel=_control"])
def test_true_does_not_open_reserved_channels(path: str, closing: ExitStack) -> None:
    app = Asking(closing)
    assert app.status(path) == 400
    assert app.status("/events/_stats", method="POST", data="x") == 400
    assert app.asked == []


def test_the_function_sees_the_session(closing: ExitStack) -> None:
    app = Asking(closing)
    app.sse.app.add_url_rule("/login", "login", lambda: flask.session.update(user="alice") or "hello")
    app.answer = lambda request: flask.session.get("user") == "alice"
    for name in REQUESTS:
        assert app.status(**REQUESTS[name][0]) == 403
    app.client.get("/login")
    for name in REQUESTS:
        assert app.status(**REQUESTS[name][0]) in ALLOWED


def test_the_publish_rate_counts_by_the_apps_subject(closing: ExitStack) -> None:
    app = Asking(closing, SSE_PUBLISH_RATE=1)
    for name in ("publish", "batch"):
        request = REQUESTS[name][0]
        app.answer = Grant(f"alice-{name}")
        assert [app.status(**request) for _ in range(2)] == [201, 429]
        app.answer = Grant(f"bob-{name}")
        assert app.status(**request) == 201


def test_a_batch_is_refused_before_it_is_stored(closing: ExitStack) -> None:
    app = Asking(closing)
    app.answer = lambda request: app.asked[-1][1] == ("a",)
    assert app.status(**REQUESTS["batch"][0]) == 403
    assert app.sse.stats.published == 0


def test_a_stream_ends_in_time_for_the_app_to_be_asked_again(closing: ExitStack) -> None:
    app = Asking(closing, SSE_HEARTBEAT=60)
    app.answer = Grant("alice", expires_in=1)
    answer = app.client.get("/events/a", buffered=False)
    blocks = list(answer.iter_encoded())  # ends, or the test times out
    assert blocks[-1].startswith(b"retry: ")
    assert app.sse.stats.closed == {"token": 1}


def test_a_function_that_is_registered_later_closes_the_fast_path(closing: ExitStack) -> None:
    app = flask.Flask("later")
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none"})
    sse = SSE(app)
    closing.callback(sse.stop)
    client = Client(app, flask.Response)
    assert client.post("/events/a", data="x").status_code == 201
    sse.authorize(lambda request, action, channels: flask.request.path == "/events/b")
    assert client.post("/events/a", data="x").status_code == 403
    assert client.post("/events/b", data="x").status_code == 201


def test_outside_flasks_context_nobody_is_let_in(closing: ExitStack) -> None:
    """If the fast path were taken by mistake, the app's function would not find its session."""
    app = Asking(closing, SSE_AUTH="none")
    part = app.sse.current
    may, part.may = part.may, None
    environ_path = {"path": "/events/a", "method": "POST", "data": "x"}
    assert app.status(**environ_path) == 201
    fast_path = part.app.wsgi_app
    part.may = may
    fast_path._takes = lambda environ: True  # type: ignore[attr-defined]
    assert app.status(**environ_path) == 500
    assert app.asked == []


def test_there_is_one_function(closing: ExitStack) -> None:
    app = Asking(closing)
    with pytest.raises(RuntimeError, match="has a function for authorize already"):
        app.sse.authorize(lambda request, action, channels: True)
    assert SSE.Grant is Grant


def test_a_refused_batch_names_nothing_of_the_app(closing: ExitStack) -> None:
    app = Asking(closing)
    app.answer = False
    body = json.loads(app.client.open(**REQUESTS["batch"][0]).data)
    assert body["status"] == 403 and body["detail"] == "this service does not allow you to publish here"
