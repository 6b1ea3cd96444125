"""The service, and two more routes that stream tokens at a fixed rate: by a run, and by ``sse.response``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import flask

from wsgi import app

sse = app.extensions["sse"]
RATE, SIZE = float(os.environ["BENCH_RATE"]), int(os.environ["BENCH_SIZE"])


def tokens() -> Iterator[str]:
    """Yield tokens for ever, each with the time of its making, which the load generator reads (loadgen/payload.c)."""
    due, number = time.monotonic(), 0
    while True:
        text = f'{{"t":{time.time_ns()},"n":{number},"pad":"'
        yield text.ljust(SIZE - 2, "x") + '"}'
        number += 1
        due += 1 / RATE
        time.sleep(max(due - time.monotonic(), 0))


@app.get("/run/<channel>")
def run(channel: str) -> flask.Response:
    return sse.run(channel, tokens()).response()


@app.get("/response/<channel>")
def response(channel: str) -> flask.Response:
    return sse.response(tokens())


@app.get("/nothing/<channel>")
def nothing(channel: str) -> flask.Response:
    """Make the tokens, and send none: what they cost alone."""

    def silent() -> Iterator[str]:
        for _ in tokens():
            pass
        yield ""

    return sse.response(silent())
