"""The service, and one more route: ``POST /start/<channel>`` starts a run of numbers, as an app's own view would."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import flask

from wsgi import app

sse = app.extensions["sse"]


def _note(word: str, channel: str) -> None:
    """Note in a file that all instances share what became of an iterable."""
    with open(os.environ["RUNS_BOOK"], "a") as book:
        book.write(f"{word} {channel}\n")


def numbers(channel: str, count: int, pause: float, first: float, until: str | None) -> Iterator[str]:
    """Yield numbers, ``pause`` seconds apart, as a model yields tokens.

    first: seconds before the first one; until: the name of a file whose appearance ends it.
    """
    _note("asked", channel)
    try:
        time.sleep(first)
        for number in range(count):
            yield str(number)
            time.sleep(pause)
            if until is not None and os.path.exists(f"{os.environ['RUNS_BOOK']}-{until}"):
                break
    except GeneratorExit:
        _note("stopped", channel)
        raise
    _note("finished", channel)
    return {"tokens": count}  # type: ignore[return-value]


@app.post("/start/<channel>")
def start(channel: str) -> tuple[dict[str, str], int]:
    """Start a run. ?count=, ?pause=, ?first=, ?until=, and ?key="""
    asked = flask.request.args
    count, pause, first = asked.get("count", 50, int), asked.get("pause", 0.02, float), asked.get("first", 0.0, float)
    tokens = numbers(channel, count, pause, first, asked.get("until"))
    run = sse.run(channel, tokens, key=asked.get("key"))
    return {"run": run.id, "channel": run.channel, "pid": str(os.getpid())}, 201
