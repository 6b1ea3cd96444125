"""Listing channels, erasing one, and ending streams: over HTTP and by the app."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client

from sse import SSE, InvalidEvent, LogUnavailable
from sse.events.model import format_id, parse_id
from sse.events.names import CONTROL_CHANNEL
from tests.sse.auth.fakes import PUBLISH_KEY, SECRET, bearer, claims, hs256
from tests.support.wait import eventually


def make(closing: ExitStack, start: bool = True, **config: Any) -> tuple[SSE, Client]:
    app = flask.Flask("managing")
    app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
    sse = SSE(app)
    closing.callback(sse.stop)
    assert not start or sse.hub.wait_ready(5)
    return sse, Client(app, flask.Response)


def token(**lists: list[str]) -> dict[str, str]:
    return bearer(hs256({**claims(), "sse": lists, "iat": int(time.time()) - 60, "sub": "alice"}))


def listed(client: Client, query: str = "", **headers: str) -> list[str]:
    answer = client.get(f"/channels{query}", headers=headers)
    assert answer.status_code == 200, answer.data
    return [channel["channel"] for channel in json.loads(answer.data)["channels"]]


# ── the list ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_channel_is_listed_with_what_the_log_has_of_it(closing: ExitStack) -> None:
    sse, client = make(closing)
    first, last = sse.publish("orders", "é"), sse.publish("orders", "xyz")
    sse.close("done")
    answer = client.get("/channels")
    assert answer.mimetype == "application/json" and answer.headers["Cache-Control"] == "no-store"
    assert json.loads(answer.data) == {
        "channels": [
            {"channel": "done", "events": 0, "bytes": 0, "oldest": None, "latest": None, "closed": True, "streams": 0},
            {"channel": "orders", "events": 2, "bytes": 5, "oldest": first, "latest": last, "closed": False, "streams": 0},
        ],
        "next": None,
    }  # fmt: skip
    assert [channel._asdict() for channel in sse.channels()] == json.loads(answer.data)["channels"]


def test_the_list_is_sorted_and_has_pages(closing: ExitStack) -> None:
    sse, client = make(closing)
    names = ["B", "a", "a.b", "a:1", "a:2", "b", "b:1"]
    for name in reversed(names):
        sse.publish(name, "x")
    assert listed(client) == names == [channel.channel for channel in sse.channels()]
    assert listed(client, "?prefix=a:") == ["a:1", "a:2"] == [channel.channel for channel in sse.channels("a:")]
    assert listed(client, "?prefix=nothing") == []
    assert listed(client, "?after=a.b&prefix=a") == ["a:1", "a:2"]
    found, after, pages = [], "", 0
    while True:
        page = json.loads(client.get(f"/channels?limit=3{after}").data)
        found += [channel["channel"] for channel in page["channels"]]
        pages += 1
        if page["next"] is None:
            break
        assert page["next"] == found[-1]
        after = f"&after={page['next']}"
    assert found == names and pages == 3
    assert json.loads(client.get(f"/channels?limit={len(names)}").data)["next"] is None, "not an empty page more"


def test_reserved_channels_are_never_listed(closing: ExitStack) -> None:
    sse, client = make(closing)
    sse.publish("a", "x")
    sse.disconnect(channel="a")
    assert sse.log.read([CONTROL_CHANNEL], 0, 9, 999)
    assert listed(client) == ["a"]
    assert client.get("/channels?prefix=_").status_code == 400


def test_the_streams_of_a_channel_are_those_whose_names_and_patterns_cover_it(closing: ExitStack) -> None:
    sse, client = make(closing)
    sse.publish("orders:1", "x")
    streams = [client.get(path, buffered=False) for path in ("/events/orders:1", "/events/orders:*", "/events/orders:2")]
    for stream in streams:
        next(stream.iter_encoded())
    eventually(lambda: sse.listeners("orders:1") == 2, 10)
    assert json.loads(client.get("/channels").data)["channels"][0]["streams"] == 2
    assert sse.channels()[0].streams == 2 and sse.listeners("orders:2") == 2 and sse.listeners("other") == 0
    for stream in streams:
        stream.close()
    eventually(lambda: sse.listeners("orders:1") == 0, 20)
    with pytest.raises(InvalidEvent):
        sse.listeners("orders:*")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=1&limit=2", "limit"),
        ("prefix=a b", "prefix"), ("prefix=_", "prefix"), ("prefix=*", "prefix"), ("prefix=a*", "prefix"),
        ("after=a b", "after"), ("after=_x", "after"), ("prefix=a&prefix=b", "prefix"), ("after=%ff", "query"),
    ],
)  # fmt: skip
def test_a_bad_parameter_of_the_list_is_refused_by_name(query: str, field: str, closing: ExitStack) -> None:
    _, client = make(closing)
    answer = client.get(f"/channels?{query}")
    assert answer.status_code == 400 and field in json.loads(answer.data)["detail"]


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        (bearer(PUBLISH_KEY), "", 200),
        (token(manage=["*"]), "", 200),
        (token(subscribe=["*"]), "", 200),
        (token(publish=["*"]), "", 403),
        (token(subscribe=["orders:*"]), "", 403),
        (token(subscribe=["orders:*"]), "?prefix=orders:", 200),
        (token(subscribe=["orders:*"]), "?prefix=orders:eu", 200),
        (token(subscribe=["orders:*"]), "?prefix=orders", 403),
        (token(manage=["orders:*"]), "?prefix=orders:", 200),
        (token(manage=["orders:*"]), "?prefix=order", 403),
        (token(subscribe=["orders"], manage=["orders"]), "?prefix=orders", 403),
        ({}, "?prefix=public:", 200),
        ({}, "?prefix=public", 401),
    ],
)
def test_who_may_list(headers: dict[str, str], query: str, status: int, closing: ExitStack) -> None:
    _, client = make(
        closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET, SSE_PUBLISH_KEY=PUBLISH_KEY, SSE_PUBLIC_CHANNELS="public:*"
    )
    assert client.get(f"/channels{query}", headers=headers).status_code == status


def test_a_token_in_the_url_lists_only_what_it_may_read(closing: ExitStack) -> None:
    _, client = make(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    for lists, status in (({"subscribe": ["*"]}, 200), ({"manage": ["*"]}, 403)):
        value = token(**lists)["Authorization"].removeprefix("Bearer ")
        assert client.get(f"/channels?access_token={value}").status_code == status


# ── erasing ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_erased_channel_is_empty_and_open_again(closing: ExitStack) -> None:
    sse, client = make(closing)
    sse.publish("a", "1")
    sse.publish("a", "2", close=True)
    sse.publish("b", "3")
    answer = client.delete("/events/a")
    assert answer.status_code == 200 and answer.mimetype == "application/json"
    body = json.loads(answer.data)
    assert body["erased"] == 2 and body.keys() == {"erased", "through"}
    assert parse_id(body["through"]) == sse.log.bounds().latest
    assert [record.data for record in sse.log.read(["a", "b"], 0, 9, 999) if record.event is None] == ["3"]
    assert client.post("/events/a", data="new").status_code == 201
    again = sse.erase("a")
    assert again.erased == 1 and parse_id(again.through) > parse_id(body["through"])
    assert sse.erase("nothing").erased == 0


@pytest.mark.parametrize("path", ["/events/_control", "/events/_stats", "/events/a%20b", "/events/orders:*"])
def test_only_channels_of_the_app_are_erased_one_by_one(path: str, closing: ExitStack) -> None:
    sse, client = make(closing)
    assert client.delete(path).status_code == 400
    with pytest.raises(InvalidEvent):
        sse.erase(path.removeprefix("/events/"))


@pytest.mark.parametrize("stored", ["no", "unknown"])
def test_a_log_that_cannot_erase_says_what_is_known(
    stored: Any, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    sse, client = make(closing)

    def fail(channel: str) -> None:
        raise LogUnavailable("file:///secret/path", stored=stored)

    monkeypatch.setattr(sse.log, "erase", fail)
    answer = client.delete("/events/a")
    body = json.loads(answer.data)
    assert answer.status_code == 503 and body["stored"] == stored and int(answer.headers["Retry-After"]) >= 1
    assert ("nothing was erased" in body["detail"]) == (stored == "no") and "secret" not in answer.text


# ── ending streams ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "members"),
    [
        ("subject=alice", {"subject": "alice"}),
        ("channel=orders", {"channel": "orders"}),
        ("channel=orders:*", {"channel": "orders:*"}),
        ("request=abc-123", {"request": "abc-123"}),
        ("subject=al%20ice&channel=a", {"subject": "al ice", "channel": "a"}),
    ],
)
def test_the_command_travels_through_the_log(query: str, members: dict[str, str], closing: ExitStack) -> None:
    sse, client = make(closing)
    before = time.time_ns() // 1_000_000
    answer = client.delete(f"/streams?{query}")
    assert answer.status_code == 202
    (record,) = sse.log.read([CONTROL_CHANNEL], 0, 9, 999)
    assert json.loads(answer.data) == {"id": format_id(record.position)}
    content = json.loads(record.data)
    assert record.event == "revoke" and before <= content.pop("at") <= time.time_ns() // 1_000_000
    assert content == members
    assert list(sse.log.notes("revoked")) == ([members["subject"]] if "subject" in members else [])


@pytest.mark.parametrize(
    "query", ["", "subject=", "channel=a%20b", "channel=_control", "channel=_*", "request=%0a", "subject=a&subject=b", f"subject={'x' * 1025}", "subject=a&chanel=a", "subject=a&channel="]
)
def test_a_command_for_nobody_is_refused(query: str, closing: ExitStack) -> None:
    sse, client = make(closing)
    assert client.delete(f"/streams?{query}").status_code in (400, 403)
    assert sse.log.read([CONTROL_CHANNEL], 0, 9, 999) == [] and sse.log.notes("revoked") == {}
    with pytest.raises(ValueError, match="whose streams"):
        sse.disconnect()


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "channel=a", 401),
        (token(publish=["*"], subscribe=["*"]), "channel=a", 403),
        (token(manage=["a"]), "channel=a", 202),
        (token(manage=["a"]), "channel=b", 403),
        (token(manage=["a"]), "channel=a*", 403),
        (token(manage=["a"]), "subject=bob", 403),
        (token(manage=["a"]), "subject=bob&channel=a", 403),
        (token(manage=["a"]), "request=r", 403),
        (token(manage=["*"]), "subject=bob", 202),
        (bearer(PUBLISH_KEY), "subject=bob", 202),
    ],
)
def test_who_may_end_streams(headers: dict[str, str], query: str, status: int, closing: ExitStack) -> None:
    sse, client = make(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET, SSE_PUBLISH_KEY=PUBLISH_KEY)
    assert client.delete(f"/streams?{query}", headers=headers).status_code == status
    assert len(sse.log.read([CONTROL_CHANNEL], 0, 9, 999)) == (status == 202)


def test_earlier_tokens_of_the_subject_are_refused_at_once_and_by_a_new_worker(closing: ExitStack) -> None:
    sse, client = make(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    alice = token(subscribe=["a"], publish=["a"])
    assert client.post("/events/a", data="x", headers=alice).status_code == 201
    sse.disconnect(subject="alice")
    assert client.post("/events/a", data="x", headers=alice).status_code == 401
    assert client.get("/events/a", headers=alice).status_code == 401
    later = bearer(hs256({**claims(publish=["a"], sub="alice"), "iat": int(time.time()) + 2}))
    assert client.post("/events/a", data="x", headers=later).status_code == 201
    # Another worker reads the same log, and has seen nothing of this.
    new, its_client = make(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET, start=False)
    new.current._log = sse.log
    assert its_client.post("/events/a", data="x", headers=alice).status_code == 401


def test_while_nobody_knows_what_was_revoked_readers_are_sent_away_and_publishers_refused(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    sse, client = make(closing, start=False, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    log = sse.log

    def fail(kind: str) -> None:
        raise LogUnavailable("the log is away", stored="no")

    monkeypatch.setattr(log, "notes", fail)
    alice = token(subscribe=["a"], publish=["a"])
    answer = client.get("/events/a", headers=alice)
    assert answer.status_code == 200 and "retry: " in answer.text and answer.text.count("\n\n") == 1, "then it ends"
    assert client.post("/events/a", data="x", headers=alice).status_code == 503
    assert client.get("/events/a", headers={**alice, "Accept": "application/json"}).status_code == 503
    monkeypatch.undo()
    assert client.post("/events/a", data="x", headers=alice).status_code == 201
    assert sse.hub.wait_ready(5), "the worker tries again"


@pytest.mark.parametrize("path", ["/channels", "/streams", "/events", "/events/a"])
def test_a_preflight_names_the_methods(path: str, closing: ExitStack) -> None:
    _, client = make(closing, SSE_CORS_ORIGINS="https://page.example")
    answer = client.options(path, headers={"Origin": "https://page.example", "Access-Control-Request-Method": "DELETE"})
    assert answer.status_code == 204 and "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    for method in ("GET", "HEAD", "POST", "DELETE", "PUT"):
        allowed = method in answer.headers["Allow"].split(", ")
        assert (client.open(path, method=method, data="x").status_code != 405) == allowed, method
