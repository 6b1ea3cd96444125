"""An app with views of its own, for tests/live/test_responses.py: what a team would put beside our routes."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Iterator

import flask
from greenlet import greenlet

from health import Health
from settings import load
from sse import SSE, Message

app = flask.Flask(__name__)
sse = SSE(app, load())
Health(app)


def _note(word: str) -> None:
    """For the test: a file that says what became of an iterable."""
    with open(os.path.join(os.environ["NOTES"], word), "a") as file:
        file.write(f"{time.monotonic()}\n")


@app.get("/count/<int:count>")
def count(count: int) -> flask.Response:
    """So many numbers, ``?pause=`` seconds apart, ``?size=`` characters each."""
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
    """Nothing, for ever, from a wait that only the server can end."""

    def nothing() -> Iterator[str]:
        try:
            time.sleep(600)
            yield "too late"
        finally:
            _note("closed")

    return sse.response(nothing())


@app.get("/failure")
def failure() -> flask.Response:
    """One event, then an exception with a secret in it."""

    def fails() -> Iterator[str]:
        yield "one"
        raise RuntimeError("the password is hunter2")

    return sse.response(fails())


@app.get("/endless")
def endless() -> flask.Response:
    """More than anybody takes."""
    return sse.response(f"{number} ".ljust(20_000, "x") for number in itertools.count())


@app.get("/echo")
def echo() -> flask.Response:
    """An ordinary answer."""
    return flask.Response("hello\n", mimetype="text/plain")


@app.get("/greenlets")
def greenlets() -> flask.Response:
    """How many greenlets are alive in this worker."""
    gc.collect()
    alive = sum(1 for one in gc.get_objects() if isinstance(one, greenlet) and one and not one.dead)
    return flask.Response(f"{alive}\n", mimetype="text/plain")
