"""Many apps in one process, as every test suite of an app with a factory makes them."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import flask
import pytest

from health import Health
from health.metrics import files as metrics_files
from sse import SSE
from sse.log import LogUnavailable
from tests.support.sse_parser import EventParser, StreamEvent
from tests.support.wait import eventually

APPS = 50

Factory = tuple[SSE, Health, Callable[..., flask.Flask]]


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    """Module-level extensions, and a factory of apps that have them."""
    sse, health = SSE(), Health()

    def create_app(name: str, **config: object) -> flask.Flask:
        app = flask.Flask(name)
        app.config.update({"SSE_LOG": "memory:", **config})
        sse.init_app(app)
        health.init_app(app)

        @app.post("/orders/<item>")
        def order(item: str) -> str:
            return sse.publish("orders", item)

        return app

    yield sse, health, create_app
    health.stop()
    sse.stop()


def events_of(app: flask.Flask, blocks: int) -> list[str]:
    """The data of all events in the channel, read from a stream."""
    parser, found = EventParser(), list[StreamEvent]()
    with closing(app.test_client().get("/events/orders?since=earliest", buffered=False)) as answer:
        for chunk in answer.iter_encoded():
            found += parser.feed(chunk)
            if len(found) > blocks:
                break
    return [block.data for block in found[1:]]


def test_each_app_has_its_own_log_settings_and_streams(factory: Factory) -> None:
    sse, _, create_app = factory
    one, other = create_app("one", SSE_MAX_CHANNELS=1), create_app("other", SSE_MAX_CHANNELS=2)
    for app, items in ((one, ("tea", "milk")), (other, ("rice",))):
        for item in items:
            assert app.test_client().post(f"/orders/{item}").status_code == 200
    assert (events_of(one, 2), events_of(other, 1)) == (["tea", "milk"], ["rice"])
    with one.app_context():
        assert sse.settings.sse_max_channels == 1
    with other.app_context():
        assert sse.settings.sse_max_channels == 2


def test_outside_a_context_several_apps_are_an_error_that_says_what_to_do(
    factory: Factory,
) -> None:
    sse, _, create_app = factory
    with pytest.raises(RuntimeError, match="init_app"):
        sse.publish("orders", "x")
    one = create_app("one")
    assert sse.publish("orders", "one app needs no context")
    other = create_app("other")
    with pytest.raises(RuntimeError, match=r"several apps \(one, other\): .*app_context"):
        sse.publish("orders", "x")
    with other.app_context():
        sse.publish("orders", "to the other")
    one.extensions["sse"].publish("orders", "to one")
    assert events_of(one, 2) == ["one app needs no context", "to one"]
    assert events_of(other, 1) == ["to the other"]


def test_apps_that_were_stopped_or_forgotten_are_not_counted(
    factory: Factory,
) -> None:
    """The second test of a suite makes its own app, and may publish from a thread that knows no context."""
    sse, health, create_app = factory
    first = create_app("first")
    first.test_client().post("/orders/tea")
    health.stop()
    sse.stop()
    second = create_app("second")
    sse.publish("orders", "after a stop")
    assert events_of(second, 1) == ["after a stop"]
    with first.app_context():
        assert sse.current is first.extensions["sse"], "its own context still means the first app"
    second.extensions["health"].stop()
    second.extensions["sse"].stop()
    del second
    create_app("forgotten").extensions["sse"].publish("orders", "x")
    last = create_app("last")
    sse.publish("orders", "after one that was forgotten")
    assert events_of(last, 1) == ["after one that was forgotten"]


def test_an_app_that_was_stopped_begins_again_when_it_is_used(
    factory: Factory, tmp_path: Path
) -> None:
    """A suite may have one app at module level, and stop it after each test."""
    sse, health, create_app = factory
    app = create_app("again", SSE_LOG=f"sqlite:///{tmp_path}/h.db")
    for n in range(3):
        app.test_client().post(f"/orders/{n}")
        assert events_of(app, n + 1) == [str(number) for number in range(n + 1)]
        assert app.test_client().get("/healthz").status_code == 200
        log = app.extensions["sse"].log
        health.stop()
        sse.stop()
        with pytest.raises(LogUnavailable):
            log.bounds()


def test_a_check_counts_for_the_apps_before_and_after_it(
    factory: Factory,
) -> None:
    _, health, create_app = factory
    before = create_app("before")
    health.add_check("db", lambda: "no answer")
    after = create_app("after")
    for app in (before, after):
        eventually(lambda app=app: b"[-]db failed: no answer" in app.test_client().get("/readyz").data, 5)  # type: ignore[misc]
    with pytest.raises(ValueError, match="already"):
        health.add_check("db", lambda: None)


def resources() -> tuple[int, int, int]:
    """Threads, open descriptors, and directories of counters."""
    return threading.active_count(), len(os.listdir("/proc/self/fd")), len(metrics_files._made)


@pytest.mark.parametrize("end", ["stopped", "forgotten"])
def test_fifty_apps_leave_no_threads_descriptors_or_files(
    end: str, factory: Factory, tmp_path: Path
) -> None:
    sse, health, create_app = factory

    def use(number: int) -> None:
        app = create_app(f"app-{number}", SSE_LOG="memory:" if number % 2 else f"sqlite:///{tmp_path}/{number}.db")
        app.test_client().post("/orders/tea")
        assert events_of(app, 1) == ["tea"]
        with app.app_context():
            run = sse.run("chat", iter(["hello"]))
        eventually(lambda: run.state == "done", 5)
        assert app.test_client().get("/healthz").status_code == 200
        if end == "stopped":
            app.extensions["health"].stop()
            app.extensions["sse"].stop()

    def nothing_is_left() -> bool:
        gc.collect()
        return all(now <= then for now, then in zip(resources(), before, strict=True))

    gc.collect()
    before = resources()
    for number in range(APPS):
        use(number)
    eventually(nothing_is_left, 20, lambda: f"{before} → {resources()}: {[t.name for t in threading.enumerate()]}")
    assert sse._parts() == [] and health._parts() == []


def test_one_decision_counts_for_the_apps_before_and_after_it(factory: Factory) -> None:
    sse, _, create_app = factory
    before = create_app("before")
    sse.authorize(lambda request, action, channels: action == "publish")
    for app in (before, create_app("after")):
        client = app.test_client()
        assert client.post("/events/orders", data="x").status_code == 201
        assert client.get("/events/orders").status_code == 403


def test_health_does_not_start_again_what_was_stopped(factory: Factory) -> None:
    """Somebody stops SSE and forgets Health, whose canary would subscribe again."""
    sse, health, create_app = factory
    app = create_app("half")
    app.test_client().get("/healthz")
    part = app.extensions["sse"]
    eventually(lambda: part.status().started, 5)
    canary = app.extensions["health"].start().canary
    eventually(lambda: canary.seen, 5)
    sse.stop()
    eventually(lambda: "stopped" in canary._logged, 5)
    assert not part.status().started and part._hub is None
    sse.publish("orders", "in use again")
    seen = canary.seen
    eventually(lambda: canary.seen > seen, 5)
