"""Server-Sent Events in Flask as tutorials show them: a queue per client, a generator that waits on it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

try:
    from gevent.monkey import is_module_patched

    _PATCHED = is_module_patched("queue")
except ImportError:
    _PATCHED = False

if _PATCHED:  # gevent's own queue is the faster one, and its documentation's choice
    from gevent.queue import Empty, SimpleQueue
else:
    from queue import Empty, SimpleQueue

HEARTBEAT = 15  # seconds

app = Flask(__name__)
clients: defaultdict[str, set[Any]] = defaultdict(set)
ids = itertools.count(1)


@app.get("/healthz")
def healthz() -> str:
    return "ok\n"


@app.post("/events/<channel>")
def publish(channel: str) -> tuple[dict[str, Any], int]:
    number = next(ids)
    message = f"id: {number}\ndata: {request.get_data(as_text=True)}\n\n"
    for queue in list(clients[channel]):  # a copy: streams come and go while this loop waits
        queue.put(message)
    return {"id": number}, 201


@app.get("/events/<channel>")
def events(channel: str) -> Response:
    queue = SimpleQueue()
    clients[channel].add(queue)

    def stream() -> Iterator[str]:
        try:
            yield ": open\n\n"
            while True:
                try:
                    yield queue.get(timeout=HEARTBEAT)
                except Empty:
                    yield "event: heartbeat\ndata: -\n\n"
        finally:
            clients[channel].discard(queue)

    return Response(stream(), mimetype="text/event-stream")
