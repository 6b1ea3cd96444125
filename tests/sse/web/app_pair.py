"""The same app twice, with the fast path and without it, and a row of requests that both must answer alike."""

from __future__ import annotations

import re
from typing import Any

import flask
import flask.sessions
import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from health import Health
from sse import SSE
from sse.web.fast_path import FastPath
from tests.sse.web.interference import Case

# Ids, times and random numbers differ between two answers.
VARYING = re.compile(rb"\d{13}(-\d+)?|(?<=retry: )\d+|session=[^;]*|Expires=[^;]*")


def permanent_session() -> str:
    """The cookie of a permanent session, as an app with this key sets it."""
    app = flask.Flask("cookie")
    app.secret_key = "a secret"
    serializer = flask.sessions.SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    return f"session={serializer.dumps({'_permanent': True, 'user': 'alice'})}"


STREAM = {"method": "GET", "data": None}
COOKIE = {"headers": {"Cookie": permanent_session()}}
UPGRADE = {"headers": {"Upgrade": "websocket", "Connection": "upgrade"}}
REQUESTS: list[dict[str, Any]] = [
    {},
    STREAM,
    COOKIE,
    STREAM | COOKIE,
    {"headers": {"Authorization": "Basic eDp5"}},
    UPGRADE,
    STREAM | UPGRADE,
    {"headers": {"Host": "a..b"}},
    {"headers": {"Host": "other.example"}},
    {"data": "x" * 100},
    {"path": "/events/a%20b"},
    {"path": "/events/orders?retry=x"},
    {**STREAM, "headers": {"Accept": "text/html"}},
    {"path": "/events"},
]


class Pair:
    """early: applied to both apps before they have the extension."""

    def __init__(self, patch: pytest.MonkeyPatch, early: Case | None = None) -> None:
        self.logs: tuple[list[str], list[str]] = [], []
        self.apps = [flask.Flask("interference", static_folder=None) for _ in range(2)]
        before: list[Any] = []
        for app, log in zip(self.apps, self.logs, strict=True):
            app.config.update(SSE_LOG="memory:", SSE_AUTH="none", SSE_MAX_EVENT_BYTES=64)
            if early is not None:
                early.apply(app, log, patch)
            before.append(vars(app).get("wsgi_app"))
            Health(app)
            SSE(app)
        fast = self.apps[0].wsgi_app
        assert isinstance(fast, FastPath)
        self.fast = fast
        vars(self.apps[1]).pop("wsgi_app")
        if before[1] is not None:
            self.apps[1].wsgi_app = before[1]  # type: ignore[method-assign]

    def close(self) -> None:
        for app in self.apps:
            app.extensions["health"].stop()
            app.extensions["sse"].stop()

    def apply(self, case: Case, patch: pytest.MonkeyPatch) -> None:
        for app, log in zip(self.apps, self.logs, strict=True):
            case.apply(app, log, patch)

    def check(self) -> None:
        """Both answer the requests alike, and call the same functions meanwhile."""
        for log in self.logs:
            log.clear()
        fast, plain = ([ask(app, **request) for request in REQUESTS] for app in self.apps)
        assert fast == plain
        assert self.logs[0] == self.logs[1]

    @property
    def open(self) -> bool:
        """The fast path has taken a request, and has not been closed since."""
        return self.fast._snapshot is not None and bool(self.fast._routes)


def ask(app: flask.Flask, **request: Any) -> Any:
    """Status, headers and first chunk of an answer, without what varies; or the exception."""
    headers = {"X-Request-ID": "r-1", **request.pop("headers", {})}
    built = {"path": "/events/orders", "method": "POST", "data": "hello", **request, "headers": headers}
    environ = EnvironBuilder(**built).get_environ()
    try:
        body, status, answered = run_wsgi_app(app, environ, buffered=False)
    except Exception as error:
        return repr(error)
    first = next(iter(body), b"")
    getattr(body, "close", lambda: None)()
    pairs = sorted(VARYING.sub(b"", f"{name}: {value}".encode()) for name, value in answered)
    return status, pairs, VARYING.sub(b"", first)
