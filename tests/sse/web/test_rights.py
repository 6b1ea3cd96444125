"""What the console is told of its visitor's rights."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import Client

from sse import SSE, Grant
from sse.web import pages
from tests.sse.auth.fakes import PUBLISH_KEY, SECRET, bearer, claims, hs256

NOBODY: dict[str, str] = {}
ALICE = {**claims(), "sub": "alice", "exp": int(time.time()) + 86400, "sse": {"publish": ["a"], "subscribe": ["a*"]}}


def make(closing: ExitStack, **config: Any) -> tuple[SSE, Client]:
    app = flask.Flask("rights")
    app.config.update({"SSE_LOG": "memory:", **config})
    app.register_blueprint(pages.blueprint)
    sse = SSE(app)
    closing.callback(sse.stop)
    return sse, Client(app, flask.Response)


def rights(client: Client, query: str, headers: dict[str, str] = NOBODY) -> dict[str, dict[str, Any]]:
    answer = client.get(f"/console/rights{query}", headers=headers)
    assert answer.status_code == 200, answer.data
    return dict(json.loads(answer.data))


@pytest.mark.parametrize(
    ("settings", "query", "headers", "missing"),
    [
        pytest.param({"SSE_AUTH": "none"}, "?channel=a", NOBODY, ("", "", ""), id="open to all"),
        pytest.param({}, "?channel=a", NOBODY, ("", "publishing is closed", "publishing is closed"), id="closed"),
        pytest.param(
            {"SSE_PUBLISH_KEY": PUBLISH_KEY}, "?channel=a", NOBODY,
            ("", "publishing needs a key or a token", "managing needs a key or a token"), id="no key",
        ),
        pytest.param({"SSE_PUBLISH_KEY": PUBLISH_KEY}, "?channel=a*", bearer(PUBLISH_KEY), ("", "", ""), id="the key"),
        pytest.param(
            {"SSE_JWT_KEY": SECRET, "SSE_JWT_ALGORITHMS": ["HS256"]}, "?channel=a", bearer(hs256(ALICE)),
            ("", "", "does not cover managing"), id="a token",
        ),
        pytest.param(
            {"SSE_JWT_KEY": SECRET, "SSE_JWT_ALGORITHMS": ["HS256"]}, "?channel=a*&channel=b", bearer(hs256(ALICE)),
            ("does not cover reading b", "does not cover publishing to a*", "does not cover managing"),
            id="a token for less",
        ),
    ],
)  # fmt: skip
def test_it_tells_what_is_allowed_and_what_is_missing(
    closing: ExitStack, settings: dict[str, Any], query: str, headers: dict[str, str], missing: tuple[str, ...]
) -> None:
    _, client = make(closing, **settings)
    told_of = rights(client, query, headers)
    for action, words in zip(("subscribe", "publish", "manage"), missing, strict=True):
        told = told_of[action]
        assert told["allowed"] is (words == "")
        assert words in told.get("missing", "")


def test_it_tells_as_whom_and_until_when(closing: ExitStack) -> None:
    _, client = make(closing, SSE_JWT_KEY=SECRET, SSE_JWT_ALGORITHMS=["HS256"])
    told = rights(client, "?channel=a", bearer(hs256(ALICE)))
    assert told["subscribe"] == {"allowed": True, "as": "token:alice", "until": ALICE["exp"]}


def test_the_apps_own_function_is_asked(closing: ExitStack) -> None:
    sse, client = make(closing)
    asked = []

    @sse.authorize
    def may(request: Any, action: str, channels: tuple[str, ...]) -> bool | Grant:
        asked.append((action, channels))
        return action != "manage" and Grant(subject="bob")

    told = rights(client, "?channel=a&channel=b*")
    assert told["publish"] == {"allowed": True, "as": "app:bob", "until": None}
    assert not told["manage"]["allowed"]
    assert asked == [(action, ("a", "b*")) for action in ("subscribe", "publish", "manage")]


@pytest.mark.parametrize("query", ["", "?channel=", "?channel=a%20b", "?channel=%FF", "?channel=_*"])
def test_other_questions_are_refused(closing: ExitStack, query: str) -> None:
    _, client = make(closing)
    answer = client.get(f"/console/rights{query}")
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert "Content-Security-Policy" in answer.headers and "Access-Control-Allow-Origin" not in answer.headers
