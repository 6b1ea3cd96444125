"""How the routes answer, on the fast path and through Flask."""

from __future__ import annotations

import io
import json
import time
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from sse import SSE
from sse.events.model import format_id
from sse.extension import AppSSE
from sse.log import LogUnavailable
from tests.support.sse_parser import EventParser
from tests.support.wait import eventually


def make(closing: ExitStack, **config: Any) -> tuple[AppSSE, Client]:
    app = flask.Flask("endpoints")
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
    sse = SSE(app)
    closing.callback(sse.stop)
    return sse.current, Client(app, flask.Response)


BATCH = {"path": "/events", "content_type": "application/x-ndjson", "data": b'{"channel":"a","data":"x"}\n'}
PUBLISH = {"path": "/events/a", "data": b"x"}


@pytest.mark.parametrize("request_", [PUBLISH, BATCH], ids=["publish", "batch"])
def test_a_body_that_ends_too_early_is_refused(
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
def test_several_processes_with_a_log_in_memory_are_refused(request_: dict[str, Any], closing: ExitStack) -> None:
    _, client = make(closing)
    answer = client.open(**request_, multiprocess=True)
    assert answer.status_code == 500
    assert "SSE_LOG=memory: is for one process" in json.loads(answer.text)["detail"]


@pytest.mark.parametrize("cursor", [False, True])
def test_a_client_that_is_sent_away_keeps_its_cursor_or_gets_the_newest(
    cursor: bool, closing: ExitStack
) -> None:
    sse, client = make(closing, SSE_MAX_STREAMS=1)
    assert sse.hub.wait_ready(5) and sse.hub.admission.admit("somebody") is None
    ids = [sse.publish("a", f"{number}") for number in range(3)]
    eventually(lambda: format_id(sse.hub.window.position) == ids[-1])
    headers = {"Last-Event-ID": ids[0]} if cursor else {}
    (block,) = EventParser().feed(client.get("/events/a", headers=headers).data)
    # With any other cursor it would miss events.
    assert block.id == (ids[0] if cursor else ids[-1]) and block.retry is not None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "publish: query": ({"method": "POST", **PUBLISH, "path": "/events/a?event=%ff"}, "the query is not UTF-8"),
    "stream: query": ({"path": "/events/a?event=%ff"}, "the query is not UTF-8"),
    "stream: empty type": ({"path": "/events/a?event=x&event="}, "event: a type has at least one character"),
    "stream: reserved with others": ({"path": "/events?channel=_canary&channel=a"}, "is streamed alone"),
    "stream: too many channels": ({"path": "/events?channel=a&channel=b&channel=c"}, "at most 2 channels (SSE_MAX_CHANNELS), not 3"),
    "stream: reserved pattern": ({"path": "/events/_*"}, "no pattern matches a name that begins with _"),
    "stream: canary and all": ({"path": "/events?channel=_canary&channel=*"}, "is streamed alone"),
    "stream: odd pattern": ({"path": "/events/a%20*"}, "a pattern is a channel name, the beginning of one"),
    "stream: star within": ({"path": "/events/a*b"}, "must be 1 to 128 of"),
    "stream: envelope": ({"path": "/events/a?envelope=yes"}, "envelope is 1 or 0"),
    "stream: plain": ({"path": "/events/a?plain=1&plain=0"}, "plain is 1 or 0"),
    "stream: none": ({"path": "/events"}, "name at least one channel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_is_wrong(name: str, closing: ExitStack) -> None:
    sse, client = make(closing, SSE_MAX_CHANNELS=2)
    request, detail = REFUSED[name]
    answer = client.open(**request)
    assert answer.status_code == 400
    assert detail in json.loads(answer.text)["detail"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert (sse.stats.published, sse.stats.opened) == (0, 0)


@pytest.mark.parametrize("request_", [PUBLISH, BATCH], ids=["publish", "batch"])
def test_publishes_and_batches_count_towards_one_rate(request_: dict[str, Any], closing: ExitStack) -> None:
    sse, client = make(closing, SSE_PUBLISH_RATE=1)
    assert [client.post(**request_).status_code for _ in range(2)] == [201, 429]
    answer = client.post(**(PUBLISH if request_ is BATCH else BATCH))
    assert answer.status_code == 429 and int(answer.headers["Retry-After"]) >= 1
    assert sse.stats.published == 1


def test_refused_publishes_are_logged_every_5_seconds_at_most(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sse, client = make(closing)

    def refuse(*_: Any, **__: Any) -> None:
        raise LogUnavailable("the disk is full")

    monkeypatch.setattr(sse, "append", refuse)
    for _ in range(3):
        answer = client.post(**PUBLISH)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
        assert "disk" not in answer.text
    assert caplog.text.count("the disk is full") == 1
    monkeypatch.setattr(sse, "_warned", time.monotonic() - 5.1)
    client.post(**PUBLISH)
    assert caplog.text.count("the disk is full") == 2


def test_a_batch_counts_its_events(closing: ExitStack) -> None:
    sse, client = make(closing)
    assert client.post(**{**BATCH, "data": b'{"channel":"a","data":"x"}\n' * 3}).status_code == 201
    sse.publish("a", "x")
    assert sse.stats.published == 4


def test_the_limit_on_an_event_counts_bytes_and_not_characters(closing: ExitStack) -> None:
    _, client = make(closing, SSE_MAX_EVENT_BYTES=10)
    for text, status in (("é" * 5, 201), ("é" * 6, 413), ("é" * 10, 413)):
        assert client.post("/events/a", data=text.encode()).status_code == status
        line = json.dumps({"channel": "a", "data": text}, ensure_ascii=False).encode()
        for body in (line, line + b"\n" + line, line + b'\n{"channel": "a", "data": "x", "data": "y"}'):
            answer = client.post(**{**BATCH, "data": body})
            assert answer.status_code == (status if b"y" not in body or status == 413 else 400)


@pytest.mark.parametrize("when", ["before the log was read", "when the cursor is looked for"])
def test_a_client_that_is_sent_away_because_of_the_log_is_counted(
    when: str, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    sse, client = make(closing)

    def away(*_: Any) -> None:
        raise LogUnavailable("away")

    assert sse.hub.wait_ready(5)
    if when == "before the log was read":
        monkeypatch.setattr(sse.hub, "wait_ready", lambda patience: False)
    else:
        monkeypatch.setattr(sse.hub.replay, "resolve", away)
    assert b"retry: " in client.get("/events/a").data
    assert sse.stats.refused == {"log": 1} and sse.stats.opened == 0
