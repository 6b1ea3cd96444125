"""An app whose history the tests ask for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import flask
from werkzeug.test import Client

from sse import SSE
from tests.support.wait import eventually

JSON = {"Accept": "application/json"}


class Site:
    """An app with a log in memory."""

    def __init__(self, closing: ExitStack, **config: Any) -> None:
        self.app = flask.Flask("history")
        self.app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
        self.sse = SSE(self.app)
        closing.callback(self.sse.stop)
        assert self.sse.hub.wait_ready(5)

    def publish(self, channel: str, *data: str, event: str | None = None) -> list[str]:
        """Publish, and wait until the worker has read it."""
        ids = [self.sse.publish(channel, one, event) for one in data]
        self.caught_up()
        return ids

    def caught_up(self) -> None:
        eventually(lambda: self.sse.hub.window.position >= self.sse.log.bounds().latest)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        answer = Client(self.app, flask.Response).get(path, headers={**JSON, **headers})
        return answer.status_code, json.loads(answer.data)

    def page(self, path: str, **headers: str) -> Any:
        status, body = self.get(path, **headers)
        assert status == 200, body
        return body

    @contextmanager
    def asking(self, path: str, **headers: str) -> Iterator[Callable[[], Any]]:
        """Ask in a thread; yields a function that waits for the answer, once the request waits."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(self.get(path, **headers)))
        polls = self.sse.hub.admission.polls
        thread.start()
        eventually(lambda: self.sse.hub.admission.polls == polls + 1 or found, 5)

        def answer() -> Any:
            thread.join(20)
            return found[0]

        try:
            yield answer
        finally:
            thread.join(70)


def data(page: Any) -> list[str]:
    return [event["data"] for event in page["events"]]
