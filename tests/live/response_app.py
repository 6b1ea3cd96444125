"""An app whose views stand beside our routes, for tests/live/test_responses.py."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import flask
from greenlet import greenlet

from health import Health
from settings import load
from sse import SSE, Message

app = flask.Flask(__name__)
sse = SSE(app, load())
Health(app)


def _note(word: str) -> None:
    """Note in a file, for the test, how an iterable ended."""
    with open(os.path.join(os.environ["NOTES"], word), "a") as file:
        file.write(f"{time.monotonic()}\n")


@app.get("/count/<int:count>")
def count(count: int) -> flask.Response:
    """Send ``count`` numbers, ``?pause=`` seconds apart, ``?size=`` characters each."""
    pause = flask.request.args.get("pause", 0.0, float)
    size = flask.request.args.get("size", 1, int)

    def numbers() -> Iterator[Message]:
        try:
            for number in range(count):
                # The request stays available to the iterable.
                yield Message(f"{number} ".ljust(size, "x"), event=flask.request.args.get("event"), id=str(number))
                time.sleep(pause)
            _note("exhausted")
        finally:
            _note("closed")

    return sse.response(numbers())


@app.get("/silence")
def silence() -> flask.Response:
    """Send nothing; wait until the server ends the wait."""

    def nothing() -> Iterator[str]:
        try:
            time.sleep(600)
            yield "too late"
        finally:
            _note("closed")

    return sse.response(nothing())


@app.get("/failure")
def failure() -> flask.Response:
    """Send one event, then raise an exception with a secret in it."""

    def fails() -> Iterator[str]:
        yield "one"
        raise RuntimeError("the password is hunter2")

    return sse.response(fails())


@app.get("/endless")
def endless() -> flask.Response:
    """Send more than any client takes."""
    return sse.response(f"{number} ".ljust(20_000, "x") for number in itertools.count())


@app.get("/echo")
def echo() -> flask.Response:
    """An ordinary answer."""
    return flask.Response("hello\n", mimetype="text/plain")


@app.get("/greenlets")
def greenlets() -> flask.Response:
    """Count the greenlets in this worker."""
    gc.collect()
    alive = sum(1 for one in gc.get_objects() if isinstance(one, greenlet) and one and not one.dead)
    return flask.Response(f"{alive}\n", mimetype="text/plain")


class Taken(flask.Response):
    """An answer as flask-sock's: the view has written to the socket itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """gunicorn's convention for it."""
        raise StopIteration


@app.get("/websocket", websocket=True)
def websocket() -> flask.Response:
    """Take the socket, send a few bytes back, then ``bye``. As in flask-sock, another thread reads."""
    sock = flask.request.environ["gunicorn.socket"]
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    heard = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := sock.recv(100):
                sock.sendall(data)
                heard.set()
        heard.set()

    threading.Thread(target=read, daemon=True).start()
    heard.wait()
    sock.sendall(b"bye")
    return Taken()


@app.get("/large")
def large() -> flask.Response:
    """Blocks, and no stream."""
    return flask.Response((b"x" * 65536 for _ in range(400)), mimetype="text/plain")
