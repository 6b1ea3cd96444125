"""The service with an app's worst habits, for tests/live/test_reasons.py."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import flask

from app import create_app
from settings import load

app = create_app(load())
sse = app.extensions["sse"]
_flask = app.wsgi_app


def _escaping(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/escape":
        raise ValueError("nobody catches this")
    if path == "/escape-late":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
        return _late()
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (bytes(65536) for _ in range(1000))
    if path == "/unread":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]
    return _flask(environ, start_response)


def _late() -> Iterator[bytes]:
    yield b"begun"
    raise ValueError("nobody catches this either")


app.wsgi_app = _escaping  # type: ignore[method-assign]


@app.get("/numbers")
def numbers() -> flask.Response:
    return sse.response(str(n) for n in range(3))  # type: ignore[no-any-return]


@app.get("/raises")
def raises() -> flask.Response:
    def items() -> Iterator[str]:
        yield "one"
        time.sleep(0.01)
        raise ValueError("in the middle")

    return sse.response(items())  # type: ignore[no-any-return]
