"""Whatever an app, an extension or an agent puts on a request's way has the effect that it has in Flask.

Each case is done to two apps, one with the fast path and one without; both answer real WSGI calls, and must answer the
same and have told the same. Where a case can come later than the first request, it is tried then, too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flask
import flask.sessions
import flask.signals
import pytest
import werkzeug.routing
import werkzeug.wrappers
from flask.app import Flask
from flask.globals import request_ctx
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from health import Health
from sse import SSE
from sse.web import routes as views
from sse.web.fast_path import MAX_CHANGES, FastPath

VARYING = re.compile(rb"\d{13}(-\d+)?|(?<=retry: )\d+|session=[^;]*|Expires=[^;]*")


class Case(NamedTuple):
    """``do`` is given the app, the list of what was told, and a MonkeyPatch for what is not the app's."""

    do: Callable[[flask.Flask, list[Any], pytest.MonkeyPatch], Any]
    late: bool = True  # can it be done after the first request?
    early: bool = True  # can it be done before the extension is there?


def forbid(*_: Any, **__: Any) -> Any:
    return "no\n", 403


def middleware(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    inner = app.wsgi_app

    def basic_auth(environ: dict[str, Any], start_response: Any) -> Any:
        if "HTTP_AUTHORIZATION" in environ:
            return inner(environ, start_response)
        start_response("401 UNAUTHORIZED", [("Content-Type", "text/plain")])
        return [b"who are you?\n"]

    app.wsgi_app = basic_auth  # type: ignore[method-assign]


def proxy_fix(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]


def tell(told: list[Any], word: str, answer: Any = None) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        told.append(word)
        return answer

    return function


def hook(name: str, scope: str | None, function: Callable[[list[Any]], Callable[..., Any]]) -> Case:
    def do(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
        hooks = getattr(app, name)
        (hooks if isinstance(hooks, list) else hooks.setdefault(scope, [])).append(function(told))

    return Case(do)


def wrapped_gate(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    """Somebody wraps the hook that says it would do nothing, and the wrapper has its attributes."""
    hooks = app.before_request_funcs[None]
    hooks[0] = functools.wraps(hooks[0])(forbid)


def wrapped_headers(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    hooks = app.after_request_funcs[views.blueprint.name]
    usual = hooks[0]

    @functools.wraps(usual)
    def more(response: Any) -> Any:
        response.headers["X-More"] = "1"
        return usual(response)

    hooks[0] = more


def wrapped_view(name: str) -> Case:
    def do(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
        endpoint = f"{views.blueprint.name}.{name}"
        app.view_functions[endpoint] = functools.wraps(app.view_functions[endpoint])(forbid)

    return Case(do, early=False)


def patched(owner: Any, name: str) -> Case:
    """An agent's patch of a method, which goes on to call it."""

    def do(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
        target = app if owner is None else owner
        usual = getattr(target, name)

        @functools.wraps(usual)
        def traced(*args: Any, **kwargs: Any) -> Any:
            if owner is None or args[0] is app:
                told.append(name)
            return usual(*args, **kwargs)

        patch.setattr(target, name, traced)

    return Case(do)


class Traced:
    """As wrapt does it: an object that stands for the function."""

    def __init__(self, app: flask.Flask, usual: Any, told: list[Any]) -> None:
        self.app, self.usual, self.told = app, usual, told

    def __get__(self, instance: Any, owner: Any) -> Any:
        usual = self.usual.__get__(instance, owner)

        def call(*args: Any, **kwargs: Any) -> Any:
            if instance is self.app:
                self.told.append("traced")
            return usual(*args, **kwargs)

        return call


def by_descriptor(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Flask, "full_dispatch_request", Traced(app, vars(Flask)["full_dispatch_request"], told))


def setting(**values: Any) -> Case:
    return Case(lambda app, told, patch: app.config.update(values))


def signal(name: str) -> Case:
    def do(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
        def receive(sender: Any, **_: Any) -> None:
            if sender is app:
                told.append(name)

        context = getattr(flask.signals, name).connected_to(receive)
        context.__enter__()
        patch.setitem(app.extensions, f"leave-{name}", receive)  # keeps it alive
        told_to_leave.append(lambda: context.__exit__(None, None, None))

    return Case(do)


told_to_leave: list[Callable[[], Any]] = []


@pytest.fixture(autouse=True)
def leave() -> Iterator[None]:
    yield
    while told_to_leave:
        told_to_leave.pop()()


class Shouting(flask.Response):
    default_mimetype = "text/x-loud"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.headers["X-Loud"] = "1"
        return super().__call__(*args, **kwargs)


class Sessions(flask.sessions.SecureCookieSessionInterface):
    def save_session(self, app: Any, session: Any, response: Any) -> None:
        response.set_cookie("mine", "1")


class Small(flask.Request):
    max_content_length = 3  # type: ignore[assignment]


def attribute(name: str, value: Any) -> Case:
    return Case(lambda app, told, patch: setattr(app, name, value))


def class_attribute(owner: Any, name: str, value: Any) -> Case:
    return Case(lambda app, told, patch: patch.setattr(owner, name, value))


def rival(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    """A route of the app's own that is more specific than ours."""
    app.url_map.add(werkzeug.routing.Rule("/events/orders", endpoint="rival", methods=["GET", "POST"]))
    app.view_functions["rival"] = forbid


class Moody(werkzeug.routing.BaseConverter):
    """A converter that begins to match later, as a database may say."""

    weight = -1

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked = 0

    def to_python(self, value: str) -> str:
        self.asked += 1
        if self.asked <= 2:
            raise werkzeug.routing.ValidationError
        return value


def moody_rival(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    app.url_map.converters["moody"] = Moody
    app.url_map.add(werkzeug.routing.Rule("/events/<moody:x>", endpoint="rival", methods=["GET", "POST"]))
    app.view_functions["rival"] = forbid


def handler(what: Any) -> Case:
    def do(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
        app.register_error_handler(what, lambda error: (f"ours: {type(error).__name__}\n", 418))

    return Case(do, late=False)


def blueprint(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    """Registered later, as factories do, with a hook for the whole app."""
    late = flask.Blueprint("late", "late")
    late.before_app_request(forbid)
    app.register_blueprint(late)


def permanent_session(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    app.secret_key = "a secret"


def subclassed(app: flask.Flask, told: list[Any], patch: pytest.MonkeyPatch) -> None:
    class Notices(flask.Flask):
        def dispatch_request(self) -> Any:
            return forbid()

    app.__class__ = Notices


CASES: dict[str, Case] = {
    "middleware": Case(middleware),
    "proxy-fix": Case(proxy_fix),
    "before-request": hook("before_request_funcs", None, lambda told: forbid),
    "before-request-of-ours": hook("before_request_funcs", views.blueprint.name, lambda told: forbid),
    "after-request": hook("after_request_funcs", None, lambda told: lambda response: flask.Response("no", 403)),
    "teardown-request": hook("teardown_request_funcs", None, lambda told: tell(told, "teardown")),
    "teardown-of-ours": hook("teardown_request_funcs", views.blueprint.name, lambda told: tell(told, "teardown")),
    "teardown-appcontext": hook("teardown_appcontext_funcs", None, lambda told: tell(told, "teardown")),
    "url-values": hook("url_value_preprocessors", None, lambda told: tell(told, "values")),
    "wrapped-gate": Case(wrapped_gate, early=False),
    "wrapped-headers": Case(wrapped_headers, early=False),
    "wrapped-publish": wrapped_view("publish_one"),
    "wrapped-stream": wrapped_view("stream_one"),
    "late-blueprint": Case(blueprint, late=False),
    "rival-route": Case(rival),
    "rival-route-that-depends": Case(moody_rival),
    "method-of-the-app": patched(None, "full_dispatch_request"),
    "call-of-the-class": patched(Flask, "__call__"),
    "wsgi-app-of-the-class": patched(Flask, "wsgi_app"),
    "dispatch-of-the-class": patched(Flask, "dispatch_request"),
    "ensure-sync-of-the-class": patched(Flask, "ensure_sync"),
    "sync-of-the-app": patched(None, "ensure_sync"),
    "routing-of-the-app": patched(None, "create_url_adapter"),
    "method-by-descriptor": Case(by_descriptor),
    "subclass": Case(subclassed),
    "response-class": attribute("response_class", Shouting),
    "response-class-of-the-class": class_attribute(Flask, "response_class", Shouting),
    "request-class": attribute("request_class", Small),
    "request-class-of-the-class": class_attribute(Flask, "request_class", Small),
    "sessions": attribute("session_interface", Sessions()),
    "sessions-of-the-class": class_attribute(Flask, "session_interface", Sessions()),
    "permanent-session": Case(permanent_session),
    "max-content-length": setting(MAX_CONTENT_LENGTH=3),
    "nothing-allowed": setting(MAX_CONTENT_LENGTH=0),
    "trusted-hosts": setting(TRUSTED_HOSTS=["other.example"]),
    "no-trusted-hosts": setting(TRUSTED_HOSTS=[]),
    "testing": setting(TESTING=True),
    "host-matching": Case(lambda app, told, patch: setattr(app.url_map, "host_matching", True)),
    "default-subdomain": Case(lambda app, told, patch: setattr(app.url_map, "default_subdomain", "www")),
    "error-handler-404": handler(404),
    "error-handler-403": handler(403),
    "error-handler-500": handler(500),
    "error-handler-exception": handler(Exception),
    "error-handler-of-a-bug": handler(ZeroDivisionError),
    **{
        f"signal-{name}": signal(name)
        for name in ("request_started", "request_finished", "request_tearing_down", "appcontext_pushed", "got_request_exception")
    },
}

HARMLESS: dict[str, Callable[[flask.Flask], Any]] = {
    "an attribute of the app's own": lambda app: setattr(app, "database", object()),
    "a setting of another extension": lambda app: app.config.update(REDIS_URL="redis://localhost"),
    "a template filter": lambda app: app.jinja_env.filters.update(up=str.upper),
    "a logger's name": lambda app: app.logger,
    "an extension": lambda app: app.extensions.update(other=object()),
    "a less specific route": lambda app: app.url_map.add(
        werkzeug.routing.Rule("/<path:rest>", endpoint="rest", methods=["POST", "GET"])
    ),
}


class Pair:
    """The same app twice: as it is, and without the fast path."""

    def __init__(self, patch: pytest.MonkeyPatch, early: Case | None = None) -> None:
        self.told: tuple[list[Any], list[Any]] = [], []
        self.apps = [flask.Flask("interference", static_folder=None) for _ in range(2)]
        before: list[Any] = []
        for app, told in zip(self.apps, self.told, strict=True):
            app.config.update(SSE_LOG="memory:", SSE_AUTH="none", SSE_MAX_EVENT_BYTES=64)
            if early is not None:
                early.do(app, told, patch)
            before.append(vars(app).get("wsgi_app"))
            Health(app)
            SSE(app)
        fast = self.apps[0].wsgi_app
        assert isinstance(fast, FastPath)
        self.fast = fast
        # The other is left as it was before the extension came.
        vars(self.apps[1]).pop("wsgi_app")
        if before[1] is not None:
            self.apps[1].wsgi_app = before[1]  # type: ignore[method-assign]

    def close(self) -> None:
        for app in self.apps:
            app.extensions["health"].stop()
            app.extensions["sse"].stop()

    def do(self, case: Case, patch: pytest.MonkeyPatch) -> None:
        for app, told in zip(self.apps, self.told, strict=True):
            case.do(app, told, patch)

    def answers(self) -> list[list[Any]]:
        """What each answers to a row of requests, without what is never the same."""
        return [[self._ask(app, **request) for request in REQUESTS] for app in self.apps]

    @staticmethod
    def _ask(app: flask.Flask, **request: Any) -> Any:
        headers = {"X-Request-ID": "r-1", **request.pop("headers", {})}
        built = {"path": "/events/orders", "method": "POST", "data": "hello", **request, "headers": headers}
        environ = EnvironBuilder(**built).get_environ()
        try:
            body, status, answered = run_wsgi_app(app, environ, buffered=False)
        except Exception as error:
            return repr(error)
        first = next(iter(body), b"")
        getattr(body, "close", lambda: None)()
        pairs = sorted(VARYING.sub(b"", f"{name}: {value}".encode()) for name, value in answered)
        return status, pairs, VARYING.sub(b"", first)


def session_cookie() -> str:
    """Of a permanent session, as an app with this key would have set it."""
    app = flask.Flask("cookie")
    app.secret_key = "a secret"
    serializer = flask.sessions.SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    return f"session={serializer.dumps({'_permanent': True, 'user': 'alice'})}"


STREAM = {"method": "GET", "data": None}
REQUESTS: list[dict[str, Any]] = [
    {},
    STREAM,
    {"headers": {"Cookie": session_cookie()}},
    {**STREAM, "headers": {"Cookie": session_cookie()}},
    {"headers": {"Authorization": "Basic eDp5"}},
    {"headers": {"Upgrade": "websocket", "Connection": "upgrade"}},
    {**STREAM, "headers": {"Upgrade": "websocket", "Connection": "upgrade"}},
    {"headers": {"Host": "a..b"}},
    {"headers": {"Host": "other.example"}},
    {"data": "x" * 100},
    {"path": "/events/a%20b"},
    {"path": "/events/orders?retry=x"},
    {**STREAM, "headers": {"Accept": "text/html"}},
    {"path": "/events"},
]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    made = Pair(monkeypatch)
    yield made
    made.close()


def check(pair: Pair) -> None:
    for told in pair.told:
        told.clear()
    fast, plain = pair.answers()
    assert fast == plain
    assert pair.told[0] == pair.told[1]


def taken(pair: Pair) -> bool:
    return pair.fast._snapshot is not None and bool(pair.fast._routes)


def test_without_interference_it_is_fast_and_the_same(pair: Pair) -> None:
    check(pair)
    assert taken(pair)
    check(pair)


@pytest.mark.parametrize("name", CASES)
def test_it_has_its_effect(name: str, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.do(CASES[name], monkeypatch)
    check(pair)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.late])
def test_it_has_its_effect_after_the_first_request_too(name: str, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    check(pair)
    assert taken(pair)
    pair.do(CASES[name], monkeypatch)
    check(pair)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.early])
def test_it_has_its_effect_when_it_was_there_before_the_extension(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch, early=CASES[name])
    try:
        check(pair)
    finally:
        pair.close()


@pytest.mark.parametrize("kind", ["rule", "lookup"])
def test_a_bug_on_the_way_is_what_flask_makes_of_it(
    kind: str, pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for app, told in zip(pair.apps, pair.told, strict=True):
        CASES["error-handler-of-a-bug" if kind == "rule" else "error-handler-500"].do(app, told, monkeypatch)
        monkeypatch.setattr(app.extensions["sse"], "append", lambda *_, **__: 1 / 0)
    check(pair)
    assert taken(pair) or kind
    assert pair._ask(pair.apps[0])[0].startswith("418")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_takes_no_part_leaves_it_fast(name: str, pair: Pair) -> None:
    check(pair)
    for app in pair.apps:
        HARMLESS[name](app)
    check(pair)
    assert taken(pair)


def test_a_patch_of_a_class_that_is_met_later_is_noticed_at_the_next_thorough_look(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(pair)
    usual = werkzeug.wrappers.Response.__call__

    def traced(self: Any, *args: Any) -> Any:
        self.headers["X-Traced"] = "1"
        return usual(self, *args)

    monkeypatch.setattr(werkzeug.wrappers.Response, "__call__", traced)
    pair.fast._examine_at = 0.0
    check(pair)


def test_an_app_that_never_rests_is_left_to_flask(pair: Pair) -> None:
    app, fast = pair.apps[0], pair.fast
    client = Client(app)
    for number in range(MAX_CHANGES + 5):
        app.requests = number  # type: ignore[attr-defined]
        assert client.post("/events/orders", data="x").status_code == 201
    assert fast._closed


def test_a_context_that_is_to_be_kept_is_flasks(pair: Pair) -> None:
    with pair.apps[0].test_client() as client:
        assert client.post("/events/orders", data="x").status_code == 201
        assert request_ctx.request.path == "/events/orders"


def test_the_memory_of_ways_is_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sse.web.fast_path.MAX_ROUTES", 3)
    client = Client(pair.apps[0])
    for number in range(10):
        assert client.post(f"/events/channel-{number}", data="x").status_code == 201
        assert len(pair.fast._routes) <= 3
    assert taken(pair)
