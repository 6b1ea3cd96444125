"""A repeated publish: what it looks at each time. In doubt it returns None, and nothing has happened."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import flask
import pytest
from werkzeug.test import EnvironBuilder

from sse import SSE
from sse.log import ChannelClosed
from sse.observe.environ import RAISED, REPEAT
from tests.sse.auth.fakes import claims, hs256

SECRET = "a secret of thirty-two bytes or more"
Again = Callable[[bytes], bytes | None]


class Site:
    """A plain app, and what it offers to repeat."""

    def __init__(self, closing: ExitStack, **config: Any) -> None:
        self.app = flask.Flask("repeated")
        self.app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
        self.sse = SSE(self.app)
        closing.callback(self.sse.stop)
        self.service = self.app.extensions["sse"]

    def offered(self, path: str = "/events/a", **request: Any) -> list[Again]:
        """Publish once; return what the app offered."""
        offers: list[Again] = []
        environ = EnvironBuilder(path, method="POST", data=b"first", **request).get_environ()
        environ[REPEAT] = offers.append
        answer = self.app(environ, lambda status, headers: None)
        assert b'"id"' in b"".join(answer)
        return offers

    def again(self, **request: Any) -> Again:
        (again,) = self.offered(**request)
        return again

    def stored(self) -> list[str]:
        return [record.data for record in self.service.log.read(None, 0, 100, 10_000)]


@pytest.fixture
def site(closing: ExitStack) -> Site:
    return Site(closing)


def test_a_repeated_publish_is_stored_and_answered_like_the_first(site: Site) -> None:
    again = site.again()
    assert re.fullmatch(rb'\{"id": "\d{13}-\d+", "channel": "a"\}\n', again(b"second") or b"")
    assert site.stored() == ["first", "second"]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"path": "/events/a?event=tick"}, id="a query"),
        pytest.param({"headers": {"Idempotency-Key": "k"}}, id="an idempotency key"),
        pytest.param({"headers": {"Traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}}, id="a trace"),
        pytest.param({"headers": {"X-Request-ID": "mine"}}, id="a request id"),
    ],
)
def test_a_request_that_is_one_of_its_kind_is_not_repeated(site: Site, request_: dict[str, Any]) -> None:
    assert site.offered(**request_) == []


def hook(site: Site) -> None:
    site.app.before_request_funcs.setdefault(None, []).append(lambda: None)


def middleware(site: Site) -> None:
    inner = site.app.wsgi_app
    site.app.wsgi_app = lambda *args: inner(*args)  # type: ignore[method-assign]


def authorize(site: Site) -> None:
    site.sse.authorize(lambda *args: True)


def setting(site: Site) -> None:
    site.service.settings.become(site.service.settings.model_copy(update={"sse_max_event_bytes": 2000}))()


@pytest.mark.parametrize("change", [hook, middleware, authorize, setting])
def test_a_change_lets_the_app_answer(site: Site, change: Callable[[Site], None]) -> None:
    again = site.again()
    change(site)
    assert again(b"second") is None
    assert site.stored() == ["first"]


def test_a_patched_app_answers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    again, call = site.again(), flask.Flask.__call__
    monkeypatch.setattr(flask.Flask, "__call__", lambda *args: call(*args))
    assert again(b"second") is None


@pytest.mark.parametrize("body", [b"\xff", b"x" * 1001], ids=["no UTF-8", "too long"])
def test_a_body_that_is_refused_goes_to_the_app(closing: ExitStack, body: bytes) -> None:
    site = Site(closing, SSE_MAX_EVENT_BYTES=1000)
    assert site.again()(body) is None
    assert site.stored() == ["first"]


def test_the_rate_counts_repeated_publishes(closing: ExitStack) -> None:
    again = Site(closing, SSE_PUBLISH_RATE=3).again()
    assert [again(b"more") is None for _ in range(3)] == [False, False, True]


def test_a_token_is_checked_each_time(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    token = hs256(claims(ttl=60, publish=["a"]), SECRET)
    again = site.again(headers={"Authorization": f"Bearer {token}"})
    assert again(b"second") is not None
    authenticator = site.service.authenticator
    now = authenticator._clock()
    monkeypatch.setattr(authenticator, "_clock", lambda: now + 120)
    assert again(b"third") is None
    assert site.stored() == ["first", "second"]


def test_what_the_log_raises_is_answered_by_the_app_without_publishing_again(site: Site) -> None:
    again = site.again()
    site.service.append([], close=("a",))
    with pytest.raises(ChannelClosed) as raised:
        again(b"second")
    assert site.service.stats.publishes_refused["ended"] == 1
    statuses: list[str] = []
    environ = EnvironBuilder("/events/a", method="POST", data=b"second").get_environ()
    environ[RAISED] = raised.value
    list(site.app(environ, lambda status, headers, exc_info=None: statuses.append(status)))
    assert statuses == ["409 CONFLICT"]
    assert site.service.stats.publishes_refused["ended"] == 1
