"""What the routes do with requests, through Flask and on the fast path alike."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from sse import SSE
from sse.event import format_id
from tests.support.sse_parser import EventParser
from tests.support.wait import eventually


def make(closing: ExitStack, **config: Any) -> tuple[SSE, Client]:
    app = flask.Flask("endpoints")
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
    sse = SSE(app)
    closing.callback(sse.stop)
    return sse, Client(app, flask.Response)


BATCH = {"path": "/events", "content_type": "application/x-ndjson", "data": b'{"channel":"a","data":"x"}\n'}
PUBLISH = {"path": "/events/a", "data": b"x"}


@pytest.mark.parametrize("request_", [PUBLISH, BATCH], ids=["publish", "batch"])
def test_a_body_that_ends_too_early_is_refused_and_nothing_is_stored(
    request_: dict[str, Any], closing: ExitStack
) -> None:
    sse, _ = make(closing)
    environ = EnvironBuilder(method="POST", **request_).get_environ()
    body = request_["data"]
    environ |= {"CONTENT_LENGTH": str(len(body) + 5), "wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
    answered, status, _ = run_wsgi_app(sse.app, environ, buffered=True)
    assert status.startswith("400")
    assert json.loads(b"".join(answered))["detail"] == f"the body ended after {len(body)} of {len(body) + 5} bytes"
    assert sse.stats.published == 0


@pytest.mark.parametrize(
    "request_",
    [{"method": "POST", **PUBLISH}, {"method": "POST", **BATCH}, {"path": "/events/a"}, {"path": "/events?channel=a"}],
    ids=["publish", "batch", "stream", "several channels"],
)
def test_a_log_in_memory_is_for_one_process(request_: dict[str, Any], closing: ExitStack) -> None:
    _, client = make(closing)
    answer = client.open(**request_, multiprocess=True)
    assert answer.status_code == 500
    assert "SSE_LOG=memory: is for one process" in json.loads(answer.text)["detail"]


@pytest.mark.parametrize("cursor", [False, True])
def test_a_client_that_is_sent_away_keeps_its_cursor_and_without_one_is_given_the_newest(
    cursor: bool, closing: ExitStack
) -> None:
    sse, client = make(closing, SSE_MAX_STREAMS=1)
    assert sse.hub.wait_ready(5) and sse.hub.admit("somebody") is None
    ids = [sse.publish("a", f"{number}") for number in range(3)]
    eventually(lambda: format_id(sse.hub.window.position) == ids[-1])
    headers = {"Last-Event-ID": ids[0]} if cursor else {}
    (block,) = EventParser().feed(client.get("/events/a", headers=headers).data)
    # With another than its own it would miss what came between.
    assert block.id == (ids[0] if cursor else ids[-1]) and block.retry is not None
