"""A channel is closed by a publish, by a line of a batch, or by the app; then it takes nothing more."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client

from sse import SSE, ChannelClosed, InvalidEvent
from sse.events.model import parse_id
from tests.sse.auth.fakes import SECRET, bearer, claims, hs256


def make(closing: ExitStack, **config: Any) -> tuple[SSE, Client]:
    app = flask.Flask("closing")
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
    sse = SSE(app)
    closing.callback(sse.stop)
    return sse, Client(app, flask.Response)


def stored(sse: SSE, channel: str) -> list[tuple[str | None, str]]:
    return [(record.event, record.data) for record in sse.log.read([channel], 0, 100, 10_000)]


def end(channel: str) -> tuple[str, str]:
    return "stream-end", json.dumps({"channel": channel}, separators=(",", ":"))


def batch(client: Client, *lines: dict[str, Any], **headers: str) -> Any:
    body = "\n".join(map(json.dumps, lines))
    return client.post("/events", data=body, content_type="application/x-ndjson", headers=headers)


@pytest.mark.parametrize(
    ("query", "body", "events"),
    [
        pytest.param("close=1", "bye", [(None, "bye")], id="a last event"),
        pytest.param("close=1&event=done", "bye", [("done", "bye")], id="with a type"),
        pytest.param("close=1&event=done", "", [("done", "")], id="a type without data"),
        pytest.param("close=1", "", [], id="no event"),
        pytest.param("close=0", "", [(None, "")], id="it stays open"),
    ],
)
def test_a_body_is_the_channels_last_event(
    query: str, body: str, events: list[tuple[str | None, str]], closing: ExitStack
) -> None:
    sse, client = make(closing)
    answer = client.post(f"/events/a?{query}", data=body)
    assert answer.status_code == 201
    closes = query.startswith("close=1")
    assert stored(sse, "a") == [*events, *([end("a")] if closes else [])]
    first = sse.log.read(["a"], 0, 1, 100)[0].position
    assert json.loads(answer.data)["channel"] == "a" and parse_id(json.loads(answer.data)["id"]) == first
    assert client.post("/events/a", data="more").status_code == (409 if closes else 201)
    assert sse.stats.published == len(events) + (not closes)


@pytest.mark.parametrize("query", ["close=", "close=true", "close=2", "close=1&close=0"])
def test_close_is_1_or_0(query: str, closing: ExitStack) -> None:
    sse, client = make(closing)
    answer = client.post(f"/events/a?{query}", data="x")
    assert answer.status_code == 400 and json.loads(answer.data)["field"] == "close"
    assert stored(sse, "a") == []


@pytest.mark.parametrize(
    "request_",
    [
        {"path": "/events/a", "data": "x"},
        {"path": "/events/a?close=1", "data": "x"},
        {"path": "/events/a?close=1"},
        {"path": "/events", "data": '{"channel":"b","data":""}\n{"channel":"a","data":""}', "content_type": "application/x-ndjson"},
        {"path": "/events", "data": '{"channel":"a","close":true}', "content_type": "application/x-ndjson"},
    ],
    ids=["an event", "a last event", "its end", "a batch", "its end in a batch"],
)
def test_a_closed_channel_takes_nothing_more(request_: dict[str, Any], closing: ExitStack) -> None:
    sse, client = make(closing)
    sse.close("a")
    answer = client.post(**request_)
    assert answer.status_code == 409 and answer.mimetype == "application/problem+json"
    body = json.loads(answer.data)
    assert body["title"] == "the channel is closed" and body["channel"] == "a" and body["status"] == 409
    assert stored(sse, "a") == [end("a")] and stored(sse, "b") == []
    assert sse.stats.publishes_refused == {"ended": 1}


def test_each_line_of_a_batch_has_its_id_in_the_answer(closing: ExitStack) -> None:
    sse, client = make(closing)
    answer = batch(
        client,
        {"channel": "z", "close": True},
        {"channel": "a", "data": "1"},
        {"channel": "m", "close": True},
        {"channel": "b", "close": True},
        {"channel": "a", "data": "2", "close": True},
        {"channel": "c", "data": "3"},
    )
    assert answer.status_code == 201
    ids = json.loads(answer.data)["ids"]
    found = {(r.channel, r.data if r.event is None else r.event): r.position for r in sse.log.read(None, 0, 100, 10_000)}
    lines = [("z", "stream-end"), ("a", "1"), ("m", "stream-end"), ("b", "stream-end"), ("a", "2"), ("c", "3")]
    assert [parse_id(one) for one in ids] == [found[line] for line in lines]
    assert len(found) == len(lines) + 1  # and the end of a, which has no line of its own
    assert sse.log.closed(["z", "a", "m", "b", "c"]).keys() == {"z", "a", "m", "b"}


def test_a_batch_that_closes_needs_the_right_for_that_channel(closing: ExitStack) -> None:
    sse, client = make(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    token = bearer(hs256(claims(publish=["mine"])))
    lines = {"channel": "mine", "data": "x"}, {"channel": "yours", "close": True}
    assert batch(client, *lines, **token).status_code == 403
    assert stored(sse, "mine") == []
    assert client.post("/events/yours?close=1", headers=token).status_code == 403
    assert client.post("/events/mine?close=1", headers=token).status_code == 201


@pytest.mark.parametrize("path", ["/events/a?close=1", "/events/a?close=1&event=e"])
def test_a_repeated_close_with_its_key_is_answered_as_the_first(path: str, closing: ExitStack) -> None:
    _, client = make(closing)
    answers = [client.post(path, headers={"Idempotency-Key": "k"}).data for _ in range(2)]
    assert answers[0] == answers[1]
    assert client.post(path).status_code == 409
    # The same key for something else is a mistake.
    assert client.post("/events/a", headers={"Idempotency-Key": "k"}).status_code == 422


def test_a_key_tells_an_event_from_a_last_event(closing: ExitStack) -> None:
    _, client = make(closing)
    key = {"Idempotency-Key": "k"}
    assert client.post("/events/a", data="x", headers=key).status_code == 201
    assert client.post("/events/a?close=1", data="x", headers=key).status_code == 422


def test_the_app_closes_a_channel(closing: ExitStack) -> None:
    sse, _ = make(closing)
    first = sse.publish("a", "1")
    last = sse.publish("a", "2", close=True)
    assert parse_id(first) < parse_id(last) < sse.log.closed(["a"])["a"]
    assert parse_id(sse.close("b")) == sse.log.closed(["b"])["b"]
    for again in (lambda: sse.publish("a", "3"), lambda: sse.close("a"), lambda: sse.publish("b", "", close=True)):
        with pytest.raises(ChannelClosed, match="is closed"):
            again()
    for name in ("", "_stats", "a b", "orders:*"):
        with pytest.raises(InvalidEvent):
            sse.close(name)


@pytest.mark.parametrize("kind", ["heartbeat", "stream-reset", "stream-end", "run"])
def test_our_own_types_cannot_be_published(kind: str, closing: ExitStack) -> None:
    sse, client = make(closing)
    assert client.post(f"/events/a?event={kind}", data="x").status_code == 400
    assert batch(client, {"channel": "a", "data": "x", "event": kind}).status_code == 400
    with pytest.raises(InvalidEvent, match="reserved"):
        sse.publish("a", "x", event=kind)
    assert stored(sse, "a") == []
