"""An app whose views stream iterables of their own. Each iterable writes its end into a file of its name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import flask

from sse import SSE, Message

app = flask.Flask("responses")
app.config.from_prefixed_env()
sse = SSE(app)


def note(name: str, text: str) -> None:
    Path(app.config["NOTES"], name).write_text(text)


@app.get("/silent/<name>")
def silent(name: str) -> flask.Response:
    """One event, and then nothing: a model that thinks."""

    def items() -> Iterator[str]:
        try:
            yield "thinking"
            while True:
                time.sleep(3600)
        finally:
            note(name, "closed")

    return sse.response(items())


@app.get("/endless/<name>")
def endless(name: str) -> flask.Response:
    """Events without end, as fast as the client takes them."""

    def items() -> Iterator[Message]:
        count = 0
        try:
            while True:
                yield Message("x" * 1000, event="token", id=str(count))
                count += 1
        finally:
            note(name, str(count))

    return sse.response(items())


@app.get("/ticking/<name>")
def ticking(name: str) -> flask.Response:
    """An event each 100 ms."""

    def items() -> Iterator[str]:
        try:
            while True:
                yield "tick"
                time.sleep(0.1)
        finally:
            note(name, "closed")

    return sse.response(items())


@app.get("/raising")
def raising() -> flask.Response:
    """Two events, and an exception."""

    def items() -> Iterator[str]:
        yield "one"
        yield "two"
        raise RuntimeError("the model fell over")

    return sse.response(items())
