"""The same app behind each kind of callable that gunicorn accepts. For tests/live/test_options.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from sse import SSE


def create_app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(SSE_LOG="memory:", SSE_HEARTBEAT=1, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=1)
    app.config.from_prefixed_env()
    sse = SSE(app)
    print(f"loaded in {os.getpid()}", flush=True)

    @app.get("/own")
    def own() -> flask.Response:
        def ticks() -> Iterator[str]:
            while True:
                yield "tick"
                time.sleep(0.1)

        return sse.response(ticks())

    while (sign := os.environ.get("LOADED_WHEN")) and not os.path.exists(sign):
        time.sleep(0.05)
    if os.environ.get("AT_IMPORT"):
        sse.publish("a", "the app is loaded")
    return app


class Lazy:
    """Loads the app at the first request, as some dispatchers do."""

    def __init__(self) -> None:
        self._app: flask.Flask | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._app is None:
            self._app = create_app()
        return self._app(environ, start_response)


class Password:
    """Middleware around ``wsgi_app``, installed before the extension or after."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION") == "Basic eDp5":
            answer: Iterable[bytes] = self._inner(environ, start_response)
            return answer
        start_response("401 UNAUTHORIZED", [("Content-Length", "0")])
        return []


def guarded() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config["SSE_LOG"] = "memory:"
    app.wsgi_app = Password(app.wsgi_app)  # type: ignore[method-assign]
    SSE(app)
    return app


def proxied() -> ProxyFix:
    return ProxyFix(create_app())


def mounted() -> DispatcherMiddleware:
    return DispatcherMiddleware(flask.Flask("other"), {"/live": create_app()})


def two() -> DispatcherMiddleware:
    return DispatcherMiddleware(create_app(), {"/live": create_app()})


def closure() -> Any:
    app = create_app()
    return lambda environ, start_response: app(environ, start_response)


lazy = Lazy
