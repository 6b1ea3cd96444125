"""The Flask extension: settings, publishing, and what health reads of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flask
import pytest

import sse as package
from sse import SSE, Event, IdempotencyConflict, InvalidEvent
from sse.events.names import CANARY_CHANNEL
from sse.extension import AppSSE
from sse.log import LogUnavailable
from sse.settings import SettingsError
from sse.streams.hub import Status
from tests.support.sse_parser import EventParser, StreamEvent

ROOT = Path(__file__).resolve().parents[2]


def app_with(closing: ExitStack, **config: Any) -> tuple[flask.Flask, AppSSE]:
    app = flask.Flask("test")
    app.config.update({"SSE_LOG": "memory:", **config})
    extension = SSE(app)
    closing.callback(extension.stop)
    return app, extension.current


def take(answer: Any, blocks: int) -> list[StreamEvent]:
    """The first blocks of a streamed answer, whose client then leaves."""
    parser, found = EventParser(), []
    for chunk in answer.iter_encoded():
        found += parser.feed(chunk)
        if len(found) >= blocks:
            break
    answer.close()
    return found


def test_init_app_does_the_same_as_the_constructor(closing: ExitStack) -> None:
    app = flask.Flask("test")
    app.config["SSE_LOG"] = "memory:"
    extension = SSE()
    extension.init_app(app)
    closing.callback(extension.stop)
    assert app.extensions["sse"] is extension.current
    assert {rule.endpoint for rule in app.url_map.iter_rules()} >= {"headwater.publish_one", "headwater.stream_one"}


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_an_app_may_also_have_flask_sse(first: str, closing: ExitStack) -> None:
    app = flask.Flask("both")
    app.config["SSE_LOG"] = "memory:"
    theirs = flask.Blueprint("sse", "flask_sse")  # its name, and how it is registered
    theirs.add_url_rule("", "stream", lambda: "theirs")
    for turn in sorted(["theirs", "ours"], key=first.__ne__):
        if turn == "ours":
            closing.callback(SSE(app).stop)
        else:
            app.register_blueprint(theirs, url_prefix="/stream")
    client = app.test_client()
    assert client.get("/stream").text == "theirs"
    assert client.get("/events").status_code == 400, "it names no channel"


def test_a_second_extension_on_one_app_is_refused(closing: ExitStack) -> None:
    app, _ = app_with(closing)
    with pytest.raises(RuntimeError, match="already"):
        SSE(app)


def test_settings_are_read_from_the_apps_config(closing: ExitStack) -> None:
    _, extension = app_with(closing, SSE_HEARTBEAT=3, SSE_MAX_CHANNELS="5", SECRET_KEY="not ours", SSE_NO_SUCH=1)
    assert (extension.settings.sse_heartbeat, extension.settings.sse_max_channels) == (3, 5)


def test_an_error_names_the_invalid_setting(closing: ExitStack) -> None:
    with pytest.raises(SettingsError, match="SSE_HEARTBEAT"):
        app_with(closing, SSE_HEARTBEAT="often")


def test_the_log_is_opened_at_its_first_use(tmp_path: Path, closing: ExitStack) -> None:
    """gunicorn may load the app before it forks, and a log must not cross a fork."""
    path = tmp_path / "h.db"
    _, extension = app_with(closing, SSE_LOG=f"sqlite:///{path}")
    assert not path.exists()
    assert not extension.status().started
    extension.publish("a", "x")
    assert path.exists()


def test_an_event_that_a_view_publishes_is_streamed_with_its_id(closing: ExitStack) -> None:
    app, extension = app_with(closing)

    @app.post("/orders")
    def order() -> dict[str, str]:
        return {"id": extension.publish("orders", "tea", event="created", retry=7)}

    client = app.test_client()
    name = client.post("/orders").get_json()["id"]
    answer = client.get("/events/orders?since=earliest", buffered=False)
    assert take(answer, 2)[1] == StreamEvent(name, "created", "tea", 7)


def test_publishing_an_invalid_event_raises(closing: ExitStack) -> None:
    _, extension = app_with(closing)
    with pytest.raises(InvalidEvent, match="channel"):
        extension.publish("a b", "x")
    with pytest.raises(InvalidEvent, match="reserved"):
        extension.publish(CANARY_CHANNEL, "x")


def test_a_script_can_publish_without_a_server(tmp_path: Path, closing: ExitStack) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    script = (
        "import flask; from sse import SSE\n"
        f"app = flask.Flask('script'); app.config['SSE_LOG'] = {url!r}\n"
        "sse = SSE(app)\n"
        "print(sse.publish('jobs', 'done'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    app, _ = app_with(closing, SSE_LOG=url)
    answer = app.test_client().get("/events/jobs?since=earliest", buffered=False)
    assert take(answer, 2)[1] == StreamEvent(done.stdout.strip(), None, "done", None)


def test_reading_the_status_starts_nothing(closing: ExitStack) -> None:
    _, extension = app_with(closing)
    before = extension.status()
    assert (before.started, before.hub_alive, before.streams) == (False, False, {})
    extension.start().wait_ready(5)
    after = extension.status()
    assert (after.started, after.hub_alive, after.draining) == (True, True, False)


def test_the_process_s_own_stream_counts_towards_no_limit(closing: ExitStack) -> None:
    """Under gthread with four threads two streams are allowed: the canary must not be one of them."""
    _, extension = app_with(closing, SSE_MAX_STREAMS=1)
    canary = extension.open(CANARY_CHANNEL)
    parser = EventParser()
    beats: list[StreamEvent] = []
    while not beats:
        beats = [block for block in parser.feed(next(canary)) if block.event == "heartbeat"]
    assert extension.hub.admission.admit("-") is None
    assert extension.hub.admission.admit("-") == "streams"
    assert extension.status().streams == {}, "operators do not see it either"
    canary.close()  # type: ignore[attr-defined]
    assert extension.hub.admission.streams == 1 and not extension.stats.closed


def test_a_stream_that_fails_to_open_does_not_count_towards_the_limits(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, extension = app_with(closing, SSE_MAX_STREAMS=1, SSE_MAX_STREAMS_PER_IP=1)
    errors: list[Exception] = [LogUnavailable("away"), ZeroDivisionError("a bug")]

    def failing(*args: object) -> None:
        raise errors.pop(0)

    with monkeypatch.context() as fault:
        fault.setattr(extension.hub.replay, "resolve", failing)
        assert take(app.test_client().get("/events/a"), 1)[0].retry, "the client is sent away"
        with pytest.raises(ZeroDivisionError):
            app.test_client().get("/events/a")
    assert extension.hub.admission.streams == 0 and not extension.hub.groups
    assert take(app.test_client().get("/events/a"), 1)[0].id


def test_before_the_log_is_read_a_client_is_sent_away_without_a_new_cursor(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one would be the beginning of the log. A cursor of the client's own is sent back."""
    app, extension = app_with(closing)
    monkeypatch.setattr(extension.hub, "wait_ready", lambda patience: False)
    monkeypatch.setattr(extension.hub.window, "position", 0)
    (block,) = take(app.test_client().get("/events/a"), 1)
    assert block.is_opening and block.id is None
    (block,) = take(app.test_client().get("/events/a", headers={"Last-Event-ID": "1763900000000-7"}), 1)
    assert block.is_opening and block.id == "1763900000000-7"


def test_attach_raises_where_sockets_are_not_taken_over(closing: ExitStack) -> None:
    import socket

    _, extension = app_with(closing)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(RuntimeError, match="does not take sockets over"):
        extension.attach(theirs)


@pytest.mark.parametrize("started", [False, True])
def test_a_forked_child_has_its_own_log_and_counts(started: bool, closing: ExitStack, tmp_path: Path) -> None:
    app, extension = app_with(closing, SSE_LOG=f"sqlite:///{tmp_path}/h.db", SSE_AUTH="none")
    extension.publish("a", "by the parent")
    if started:
        assert extension.start().wait_ready(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads
        pid = os.fork()
    if pid == 0:  # the child must not return to pytest
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not pytest-timeout's, which needs Python to go on
        signal.alarm(20)
        try:
            fresh = extension.status() == Status(False, False, 0.0, 0, {}, False) and extension.stats.published == 0
            extension.publish("a", "by the child")
            ready = extension.start().wait_ready(5)
            os._exit(0 if fresh and ready and extension.stats.published == 1 else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    extension.publish("a", "by the parent again")
    found = take(app.test_client().get("/events/a?since=earliest"), 4)
    assert [block.data for block in found[1:]] == ["by the parent", "by the child", "by the parent again"]
    assert extension.stats.published == 2


def test_stop_may_be_called_twice_and_without_a_start() -> None:
    app = flask.Flask("test")
    app.config["SSE_LOG"] = "memory:"
    extension = SSE(app)
    extension.stop()
    extension.current.start()
    extension.stop()
    extension.stop()


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(package, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such"):
        package.no_such  # noqa: B018


# ── publishing from an app ────────────────────────────────────────────────────────────────────────────────────


def stored(extension: AppSSE, channel: str) -> list[str]:
    return [record.data for record in extension.log.read([channel], 0, 100, 10_000)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param("text stays", "text stays", id="text"),
        pytest.param({"b": 1, "a": ["é", None]}, '{"b":1,"a":["é",null]}', id="a mapping, in its order"),
        pytest.param([1, 2.5, True], "[1,2.5,true]", id="a list"),
        pytest.param(7, "7", id="a number"),
        pytest.param({"at": datetime(2026, 1, 2, tzinfo=UTC)}, '{"at":"Fri, 02 Jan 2026 00:00:00 GMT"}', id="as Flask's jsonify"),
    ],
)
def test_data_that_is_not_text_is_sent_as_compact_json(data: object, text: str, closing: ExitStack) -> None:
    app, extension = app_with(closing)
    with app.app_context():
        extension.publish("a", data)
        extension.publish_batch([{"channel": "a", "data": data}])
    assert stored(extension, "a") == [text, text]


@pytest.mark.parametrize("data", [b"bytes", {"x": float("nan")}, object()], ids=["bytes", "NaN", "an object"])
def test_data_that_is_no_json_is_refused(data: object, closing: ExitStack) -> None:
    _, extension = app_with(closing)
    with pytest.raises(InvalidEvent, match="data.* JSON"):
        extension.publish("a", data)


def test_the_apps_own_json_provider_writes_it(closing: ExitStack) -> None:
    class Provider(flask.json.provider.JSONProvider):
        def dumps(self, obj: Any, **kwargs: Any) -> str:
            assert not kwargs
            return f"<{obj}>"

    app, extension = app_with(closing)
    app.json = Provider(app)
    extension.publish("a", [1])
    assert stored(extension, "a") == ["<[1]>"]


def test_a_key_makes_publishing_idempotent(closing: ExitStack) -> None:
    _, extension = app_with(closing)
    first = extension.publish("a", {"n": 1}, key="order-1")
    assert extension.publish("a", {"n": 1}, key="order-1") == first
    with pytest.raises(IdempotencyConflict):
        extension.publish("a", {"n": 2}, key="order-1")
    batch = [{"channel": "a", "data": "x"}, Event("b", "y", "kind")]
    ids = extension.publish_batch(batch, key="batch-1")
    assert extension.publish_batch(batch, key="batch-1") == ids and len(ids) == 2
    assert stored(extension, "a") == ['{"n":1}', "x"]
    with pytest.raises(InvalidEvent, match="key"):
        extension.publish("a", "x", key="a b")


def test_a_batch_is_stored_whole_or_not_at_all(closing: ExitStack) -> None:
    _, extension = app_with(closing)
    with pytest.raises(InvalidEvent, match="members"):
        extension.publish_batch([{"channel": "a", "data": "x"}, {"channel": "a", "dada": "y"}])
    with pytest.raises(InvalidEvent, match="members"):
        extension.publish_batch([{"channel": "a", "data": "x"}, {"channel": "a"}])
    with pytest.raises(InvalidEvent, match="channel"):
        extension.publish_batch([{"channel": "a", "data": "x"}, {"channel": "-", "data": "y"}])
    assert stored(extension, "a") == [] and extension.publish_batch([]) == []


# ── names in app.config ───────────────────────────────────────────────────────────────────────────────────────


def test_a_typo_in_app_config_is_pointed_out_once(
    closing: ExitStack, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse.apps._warned", set())
    for _ in range(2):
        app_with(
            closing,
            SSE_HEARTBEET=5,
            SSE_REDIS_URL="redis://of-flask-sse",
            HEALTH_METRICS_PATH="/health/metrics",
            SSE_SERVICE_HOST="10.0.0.7",  # from os.environ, in Kubernetes
            SECRET_KEY="x",
        )
    assert caplog.messages == ["app.config: SSE_HEARTBEET is not a setting (did you mean SSE_HEARTBEAT?); it is ignored"]
