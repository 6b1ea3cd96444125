"""How the routes answer. (tests/live checks that gunicorn then closes the connection.)"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from health import Health, hooks
from tests.health.fakes import FakeSource, heartbeat
from tests.support.wait import eventually

MAIN, PROBES = "8080", "8081"


class Site:
    """An app with health and a service that the test controls."""

    def __init__(self, source: FakeSource | None, **config: Any) -> None:
        self.app = flask.Flask("site")
        self.app.config.update(config)
        self.source = source
        if source is not None:
            self.app.extensions["sse"] = source
        self.health = Health(self.app).current
        self.app.add_url_rule("/events/<channel>", "events", lambda channel: f"stream of {channel}")

    def ask(self, path: str, port: str = MAIN, method: str = "GET") -> Any:
        client = self.app.test_client()
        return client.open(path, method=method, environ_overrides={"SERVER_PORT": port})

    def close(self) -> None:
        self.health.stop()
        if self.source is not None:
            self.source.close()


@pytest.fixture
def site() -> Iterator[Site]:
    source = FakeSource()
    site = Site(source, HEALTH_PORT=8081)
    site.health.start()
    eventually(lambda: source.attached)
    yield site
    site.close()


@pytest.fixture
def started(site: Site) -> Site:
    assert site.source is not None
    site.source.send(heartbeat())
    eventually(lambda: site.ask("/startupz").status_code == 200)
    # The next beat writes the canary to the board.
    eventually(lambda: site.ask("/readyz").status_code == 200)
    return site


@pytest.mark.parametrize("port", [MAIN, PROBES])
@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/startupz"])
def test_a_passing_probe_answers_ok_with_the_documented_headers(started: Site, path: str, port: str) -> None:
    answer = started.ask(path, port)
    assert (answer.status_code, answer.data) == (200, b"ok\n")
    assert dict(answer.headers) == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": "3",
        "Connection": "close",
        "Cache-Control": "no-store",
    }


def test_head_is_answered_with_the_headers_of_get_and_no_body(started: Site) -> None:
    answer = started.ask("/readyz", method="HEAD")
    assert (answer.status_code, answer.data, answer.headers["Content-Length"]) == (200, b"", "3")
    assert answer.headers["Connection"] == "close"


def test_a_failing_probe_answers_503_with_a_line_per_failure(site: Site) -> None:
    answer = site.ask("/startupz")
    assert answer.status_code == 503
    assert answer.data == b"[-]first-canary failed: the first canary has not arrived yet\n"
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert answer.headers["Connection"] == "close"


def test_verbose_lists_every_check(started: Site) -> None:
    text = started.ask("/readyz?verbose").text
    assert text.splitlines() == [
        "[+]startup ok",
        "[+]workers ok",
        "[+]drain ok",
        "[+]hub ok",
        "[+]canary ok",
        "[+]log-tail ok",
        "[+]appends ok",
        "readyz check passed",
    ]


def test_the_next_answer_reports_a_drain(started: Site) -> None:
    assert started.source is not None
    started.source.now.draining = True
    answer = started.ask("/readyz")
    assert (answer.status_code, b"drain failed" in answer.data) == (503, True)
    assert started.ask("/healthz").status_code == 200, "a draining worker must not be restarted"


def test_startup_latches(started: Site) -> None:
    assert started.source is not None
    started.source.now.started = False
    assert started.ask("/startupz").status_code == 200


def test_startup_latches_even_if_nobody_asks(site: Site) -> None:
    assert site.source is not None
    site.source.send(heartbeat())
    pulse = site.health.start()
    eventually(lambda: pulse.seat.board.started, 3.0)


def test_a_service_whose_status_raises_makes_the_pod_unready_but_not_dead(
    started: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError("gone")

    monkeypatch.setattr(started.source, "status", broken)
    assert started.ask("/readyz").status_code == 503
    assert started.ask("/healthz").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_a_probe_route_refuses_other_methods_and_closes_the_connection(site: Site, method: str) -> None:
    answer = site.ask("/healthz", method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/events/orders", "/", "/nothing", "/healthz/", "/openapi.json"])
def test_the_health_port_serves_nothing_but_health(site: Site, path: str, method: str) -> None:
    answer = site.ask(path, PROBES, method)
    assert answer.status_code == 404
    assert answer.headers["Connection"] == "close"
    assert b"stream" not in answer.data


def test_the_main_port_serves_the_app(site: Site) -> None:
    assert site.ask("/events/orders").data == b"stream of orders"


def test_metrics_are_on_the_health_port_only(started: Site) -> None:
    assert started.ask("/metrics").status_code == 404
    answer = started.ask("/metrics", PROBES)
    assert answer.status_code == 200
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'health_workers{state="running"} 1.0' in answer.text


def test_with_one_listener_metrics_are_on_it() -> None:
    site = Site(None)
    try:
        assert site.ask("/metrics").status_code == 200
        assert site.ask("/events/orders").status_code == 200
    finally:
        site.close()


def _theirs() -> str:
    return "the app's own metrics"


@pytest.mark.parametrize("first", [True, False], ids=["before health", "after health"])
def test_with_a_health_port_the_apps_own_metrics_and_ours_are_both_served(
    first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = flask.Flask("rival")
    app.config["HEALTH_PORT"] = 8081
    if first:
        app.add_url_rule("/metrics", "prometheus_metrics", _theirs)
    health = Health(app)
    if not first:
        app.add_url_rule("/metrics", "prometheus_metrics", _theirs)
    client = app.test_client()
    try:
        assert client.get("/metrics", environ_overrides={"SERVER_PORT": MAIN}).text == _theirs()
        ours = client.get("/metrics", environ_overrides={"SERVER_PORT": PROBES})
        assert (ours.status_code, "health_workers_expected" in ours.text) == (200, True)
        refused = client.post("/metrics", environ_overrides={"SERVER_PORT": PROBES})
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
        assert "/metrics" not in caplog.text
    finally:
        health.stop()


@pytest.mark.parametrize("first", [True, False], ids=["before health", "after health"])
def test_on_one_listener_the_apps_own_metrics_win_with_one_warning(
    first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = flask.Flask("rival")
    if first:
        app.add_url_rule("/metrics", "prometheus_metrics", _theirs)
    health = Health(app)
    if not first:
        app.add_url_rule("/metrics", "prometheus_metrics", _theirs)
    client = app.test_client()
    try:
        assert [client.get("/metrics").text for _ in range(3)] == [_theirs()] * 3
        assert client.get("/healthz").status_code == 200
        (said,) = [record.getMessage() for record in caplog.records if "/metrics" in record.getMessage()]
        assert "'prometheus_metrics'" in said and "HEALTH_METRICS_PATH" in said
    finally:
        health.stop()


def test_a_mounted_application_that_hides_the_metrics_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """prometheus_client's documentation mounts one in front of Flask."""
    app = flask.Flask("rival")
    health = Health(app).current
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": lambda *_: []})  # type: ignore[method-assign]
    health.start()
    health.stop()
    assert caplog.text.count("a mounted WSGI application") == 1


def test_the_path_of_the_metrics_can_be_set(caplog: pytest.LogCaptureFixture) -> None:
    app = flask.Flask("rival")
    app.config["HEALTH_METRICS_PATH"] = "/health/metrics"
    app.add_url_rule("/metrics", "prometheus_metrics", _theirs)
    health = Health(app)
    client = app.test_client()
    try:
        assert client.get("/metrics").text == _theirs()
        assert "health_workers_expected" in client.get("/health/metrics").text
        assert "metrics" not in caplog.text
    finally:
        health.stop()


def test_an_app_without_streams_has_health() -> None:
    site = Site(None)
    try:
        eventually(lambda: site.ask("/readyz").status_code == 200, 3.0)
        assert site.ask("/healthz").data == b"ok\n"
    finally:
        site.close()


def test_the_pulse_keeps_the_board_fresh(started: Site) -> None:
    seat = started.health.start().seat
    assert seat.slot is not None
    first = seat.board.read(seat.slot)
    eventually(lambda: seat.board.read(seat.slot or 0) != first, 2.0)
    found = seat.board.read(seat.slot)
    assert found is not None
    assert (found.streams, found.state) == (4, "running")


def test_an_added_check_is_asked_by_readyz(started: Site) -> None:
    started.health.add_check("db", lambda: "no answer from the primary")
    eventually(lambda: b"[-]db failed: no answer from the primary\n" == started.ask("/readyz").data, 3.0)
    assert started.ask("/healthz").status_code == 200


def test_the_hook_starts_health_before_the_first_request() -> None:
    site = Site(None)
    assert site.health._pulse is None, "nothing runs before the fork"
    hooks.post_worker_init(SimpleNamespace(wsgi=site.app))
    assert site.health._pulse is not None
    site.health.stop()
    hooks.post_worker_init(SimpleNamespace(wsgi=lambda environ, start_response: []))


def test_two_extensions_for_one_app_are_refused() -> None:
    app = flask.Flask("x")
    Health(app)
    with pytest.raises(RuntimeError, match="already"):
        Health(app)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEALTH_CANARY_MAX_AGE", "soon"),
        ("HEALTH_CANARY_MAX_AGE", 0),
        ("HEALTH_LOOP_LAG_MAX", float("nan")),
        ("HEALTH_READY_STRICT", "maybe"),
        ("HEALTH_PORT", "http"),
        ("HEALTH_METRICS_PATH", "metrics"),
        ("HEALTH_METRICS_PATH", "/"),
        ("HEALTH_METRICS_PATH", 7),
        ("HEALTH_PORT", 65536),
    ],
)
def test_an_error_names_the_invalid_setting(name: str, value: object) -> None:
    app = flask.Flask("x")
    app.config[name] = value
    with pytest.raises(ValueError, match=name):
        Health(app)


def test_settings_may_be_an_object_and_change() -> None:
    settings = SimpleNamespace(
        port=8080, health_port=9, health_canary_max_age=7.0, health_loop_lag_max=1.0, health_ready_strict=True
    )
    health = Health(flask.Flask("x"), settings).current
    assert (health._config.health_port, health._config.limits().canary_max_age) == (9, 7.0)
    assert health._config.limits().strict
    settings.health_canary_max_age = 8.0
    assert health._config.limits().canary_max_age == 8, "a setting may change"


@pytest.mark.parametrize(("text", "strict"), [("1", True), ("off", False), (True, True)])
def test_booleans_are_read_as_in_the_environment(text: object, strict: bool) -> None:
    app = flask.Flask("x")
    app.config["HEALTH_READY_STRICT"] = text
    assert Health(app).current._config.limits().strict is strict
