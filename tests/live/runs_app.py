"""An app that starts runs, for tests/live/test_runs*.py. Each iterable notes in a file how it was closed."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator

import flask

from health import Health
from settings import load
from sse import SSE

app = flask.Flask(__name__)
sse = SSE(app, load())
Health(app)


def note(name: str, word: str) -> None:
    with open(os.path.join(os.environ["NOTES"], name), "a") as file:
        file.write(f"{word}\n")


def ticks(name: str, count: int, pause: float) -> Iterator[str]:
    """Yield ``count`` numbers, ``pause`` seconds apart."""
    note(name, "begun")
    try:
        for number in range(count):
            time.sleep(pause)
            yield str(number)
        return {"ticks": count}  # type: ignore[return-value]
    except GeneratorExit:
        note(name, "GeneratorExit")
        raise
    finally:
        note(name, "closed")


def silent(name: str) -> Iterator[str]:
    """Yield nothing."""
    note(name, "begun")
    try:
        threading.Event().wait()
        yield "never"
    except GeneratorExit:
        note(name, "GeneratorExit")
        raise
    finally:
        note(name, "closed")


def stubborn(name: str) -> Iterator[str]:
    """Go on after GeneratorExit."""
    for number in itertools.count():
        try:
            time.sleep(0.05)
            yield str(number)
        except GeneratorExit:
            note(name, "GeneratorExit")


def broken(name: str) -> Iterator[str]:
    yield "one"
    raise RuntimeError("the password is hunter2")


def at_once(name: str) -> Iterator[str]:
    return (str(number) for number in range(10_000))


@app.post("/ticks/<channel>")
def start_ticks(channel: str) -> flask.Response:
    """Start ``?count=`` ticks, ``?pause=`` seconds apart, and watch them."""
    args = flask.request.args
    work = ticks(channel, args.get("count", 10, int), args.get("pause", 0.02, float))
    run = sse.run(channel, work, key=args.get("key"), close=args.get("close", "1") == "1")
    time.sleep(args.get("late", 0, float))
    return run.response(plain=args.get("plain") == "1")


@app.post("/start/<kind>/<channel>")
def start(kind: str, channel: str) -> flask.Response:
    """Start one of the odd iterables, and answer with its id."""
    work = {"silent": silent, "stubborn": stubborn, "broken": broken, "at_once": at_once}[kind](channel)
    return flask.Response(sse.run(channel, work).id, 201)


@app.post("/stop/<path:run>")
def stop(run: str) -> flask.Response:
    sse.stop_run(run)
    return flask.Response(status=204)


@app.get("/pid")
def pid() -> flask.Response:
    return flask.Response(str(os.getpid()))
