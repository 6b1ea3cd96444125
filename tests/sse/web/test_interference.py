"""Whatever an app, an extension or an agent adds to a request's way through Flask also works with the fast path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import werkzeug.wrappers
from flask.globals import request_ctx
from werkzeug.test import Client

from sse.web.fast_path import MAX_CHANGES
from tests.sse.web.app_pair import Pair, ask
from tests.sse.web.interference import CASES, HARMLESS, connected


@pytest.fixture(autouse=True)
def disconnect() -> Iterator[None]:
    yield
    connected.close()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    made = Pair(monkeypatch)
    yield made
    made.close()


def test_a_plain_app_takes_the_fast_path_and_answers_as_flask_does(pair: Pair) -> None:
    pair.check()
    assert pair.open
    pair.check()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.early])
def test_what_was_there_before_the_extension_has_its_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch, early=CASES[name])
    try:
        pair.check()
    finally:
        pair.close()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not (case.early and case.late)])
def test_what_is_added_before_the_first_request_has_its_effect(
    name: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.apply(CASES[name], monkeypatch)
    pair.check()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.late])
def test_what_is_added_after_the_first_request_has_its_effect(
    name: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.check()
    assert pair.open
    pair.apply(CASES[name], monkeypatch)
    pair.check()


@pytest.mark.parametrize("handler", ["error-handler-of-a-bug", "error-handler-500"])
def test_the_apps_error_handler_answers_a_bug(handler: str, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.apply(CASES[handler], monkeypatch)
    for app in pair.apps:
        monkeypatch.setattr(app.extensions["sse"], "append", lambda *_, **__: 1 / 0)
    pair.check()
    assert pair.open
    assert ask(pair.apps[0])[0].startswith("418")


@pytest.mark.parametrize("name", HARMLESS)
def test_an_app_stays_plain_with(name: str, pair: Pair) -> None:
    pair.check()
    for app in pair.apps:
        HARMLESS[name](app)
    pair.check()
    assert pair.open


def test_the_next_thorough_examination_notices_a_patch_of_a_base_class(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.check()
    usual = werkzeug.wrappers.Response.__call__

    def traced(self: Any, *args: Any) -> Any:
        self.headers["X-Traced"] = "1"
        return usual(self, *args)

    monkeypatch.setattr(werkzeug.wrappers.Response, "__call__", traced)
    pair.fast._examine_at = 0.0
    pair.check()


def test_flask_serves_an_app_that_keeps_changing(pair: Pair) -> None:
    app, client = pair.apps[0], Client(pair.apps[0])
    for number in range(MAX_CHANGES + 5):
        app.requests = number  # type: ignore[attr-defined]
        assert client.post("/events/orders", data="x").status_code == 201
    assert pair.fast._closed


def test_flasks_test_client_can_keep_the_requests_context(pair: Pair) -> None:
    with pair.apps[0].test_client() as client:
        assert client.post("/events/orders", data="x").status_code == 201
        assert request_ctx.request.path == "/events/orders"


def test_the_number_of_remembered_routes_is_limited(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sse.web.fast_path.MAX_ROUTES", 3)
    client = Client(pair.apps[0])
    for number in range(10):
        assert client.post(f"/events/channel-{number}", data="x").status_code == 201
        assert len(pair.fast._routes) <= 3
    assert pair.open
