"""Everything that an app, an extension or an agent may add to a request's way through Flask, as a table of cases."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import flask
import flask.sessions
import flask.signals
import pytest
import werkzeug.routing
from flask.app import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from sse.web import routes as views

Log = list[str]  # the names of the functions that were called
Monkey = pytest.MonkeyPatch


class Case(NamedTuple):
    """``apply`` is given the app, a list for the calls of what it adds, and a MonkeyPatch for what is not the app's."""

    apply: Callable[[flask.Flask, Log, Monkey], Any]
    late: bool = True  # can be applied after the first request
    early: bool = True  # can be applied before the extension exists


def forbid(*_: Any, **__: Any) -> Any:
    return "no\n", 403


def record(log: Log, name: str) -> Callable[..., None]:
    def function(*_: Any, **__: Any) -> None:
        log.append(name)

    return function


# ── middleware and hooks ──────────────────────────────────────────────────────────────────────────────────────


def middleware(app: flask.Flask, log: Log, patch: Monkey) -> None:
    inner = app.wsgi_app

    def basic_auth(environ: dict[str, Any], start_response: Any) -> Any:
        if "HTTP_AUTHORIZATION" in environ:
            return inner(environ, start_response)
        start_response("401 UNAUTHORIZED", [("Content-Type", "text/plain")])
        return [b"who are you?\n"]

    app.wsgi_app = basic_auth  # type: ignore[method-assign]


def proxy_fix(app: flask.Flask, log: Log, patch: Monkey) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]


def hook(name: str, scope: str | None, make: Callable[[Log], Callable[..., Any]]) -> Case:
    def apply(app: flask.Flask, log: Log, patch: Monkey) -> None:
        hooks = getattr(app, name)
        (hooks if isinstance(hooks, list) else hooks.setdefault(scope, [])).append(make(log))

    return Case(apply)


def wrapped_gate(app: flask.Flask, log: Log, patch: Monkey) -> None:
    """The wrapper copies the attribute by which health's hook keeps the app plain."""
    hooks = app.before_request_funcs[None]
    hooks[0] = functools.wraps(hooks[0])(forbid)


def wrapped_headers(app: flask.Flask, log: Log, patch: Monkey) -> None:
    hooks = app.after_request_funcs[views.blueprint.name]
    usual = hooks[0]

    @functools.wraps(usual)
    def more(response: Any) -> Any:
        response.headers["X-More"] = "1"
        return usual(response)

    hooks[0] = more


def wrapped_view(name: str) -> Case:
    def apply(app: flask.Flask, log: Log, patch: Monkey) -> None:
        endpoint = f"{views.blueprint.name}.{name}"
        app.view_functions[endpoint] = functools.wraps(app.view_functions[endpoint])(forbid)

    return Case(apply, early=False)


def late_blueprint(app: flask.Flask, log: Log, patch: Monkey) -> None:
    """App factories register blueprints last; this one has a hook for the whole app."""
    late = flask.Blueprint("late", "late")
    late.before_app_request(forbid)
    app.register_blueprint(late)


def handler(error_or_status: Any) -> Case:
    def apply(app: flask.Flask, log: Log, patch: Monkey) -> None:
        app.register_error_handler(error_or_status, lambda error: (f"ours: {type(error).__name__}\n", 418))

    return Case(apply, late=False)


def signal(name: str) -> Case:
    def apply(app: flask.Flask, log: Log, patch: Monkey) -> None:
        def receive(sender: Any, **_: Any) -> None:
            if sender is app:
                log.append(name)

        connected.enter_context(getattr(flask.signals, name).connected_to(receive))
        patch.setitem(app.extensions, f"receiver-{name}", receive)  # a signal keeps only a weak reference

    return Case(apply)


# Disconnects the receivers; closed by the fixture `disconnect` of the test module.
connected = ExitStack()


# ── patches ───────────────────────────────────────────────────────────────────────────────────────────────────


def patched(owner: Any, name: str) -> Case:
    """An agent's patch of a method, which calls the original. owner: None for the app itself."""

    def apply(app: flask.Flask, log: Log, patch: Monkey) -> None:
        target = app if owner is None else owner
        usual = getattr(target, name)

        @functools.wraps(usual)
        def traced(*args: Any, **kwargs: Any) -> Any:
            if owner is None or args[0] is app:
                log.append(name)
            return usual(*args, **kwargs)

        patch.setattr(target, name, traced)

    return Case(apply)


class Traced:
    """A descriptor in a function's place, as wrapt makes it."""

    def __init__(self, app: flask.Flask, usual: Any, log: Log) -> None:
        self.app, self.usual, self.log = app, usual, log

    def __get__(self, instance: Any, owner: Any) -> Any:
        usual = self.usual.__get__(instance, owner)

        def call(*args: Any, **kwargs: Any) -> Any:
            if instance is self.app:
                self.log.append("traced")
            return usual(*args, **kwargs)

        return call


def descriptor(app: flask.Flask, log: Log, patch: Monkey) -> None:
    patch.setattr(Flask, "full_dispatch_request", Traced(app, vars(Flask)["full_dispatch_request"], log))


# ── classes, settings and routes ──────────────────────────────────────────────────────────────────────────────


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
    return Case(lambda app, log, patch: setattr(app, name, value))


def class_attribute(name: str, value: Any) -> Case:
    return Case(lambda app, log, patch: patch.setattr(Flask, name, value))


def setting(**values: Any) -> Case:
    return Case(lambda app, log, patch: app.config.update(values))


def subclass(app: flask.Flask, log: Log, patch: Monkey) -> None:
    class Forbidding(flask.Flask):
        def dispatch_request(self) -> Any:
            return forbid()

    app.__class__ = Forbidding


def route(rule: str) -> Case:
    """A route of the app's own that is more specific than ours."""

    def apply(app: flask.Flask, log: Log, patch: Monkey) -> None:
        app.url_map.converters["later"] = MatchesLater
        app.url_map.add(werkzeug.routing.Rule(rule, endpoint="own", methods=["GET", "POST"]))
        app.view_functions["own"] = forbid

    return Case(apply)


class MatchesLater(werkzeug.routing.BaseConverter):
    """A converter that matches from its third request on, as one that asks a database may."""

    weight = -1

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked = 0

    def to_python(self, value: str) -> str:
        self.asked += 1
        if self.asked <= 2:
            raise werkzeug.routing.ValidationError
        return value


SIGNALS = ("request_started", "request_finished", "request_tearing_down", "appcontext_pushed", "got_request_exception")

CASES: dict[str, Case] = {
    "middleware": Case(middleware),
    "proxy-fix": Case(proxy_fix),
    "before-request": hook("before_request_funcs", None, lambda log: forbid),
    "before-request-of-ours": hook("before_request_funcs", views.blueprint.name, lambda log: forbid),
    "after-request": hook("after_request_funcs", None, lambda log: lambda response: flask.Response("no", 403)),
    "teardown-request": hook("teardown_request_funcs", None, lambda log: record(log, "teardown")),
    "teardown-of-ours": hook("teardown_request_funcs", views.blueprint.name, lambda log: record(log, "teardown")),
    "teardown-appcontext": hook("teardown_appcontext_funcs", None, lambda log: record(log, "teardown")),
    "url-values": hook("url_value_preprocessors", None, lambda log: record(log, "values")),
    "wrapped-gate": Case(wrapped_gate, early=False),
    "wrapped-headers": Case(wrapped_headers, early=False),
    "wrapped-publish": wrapped_view("publish_one"),
    "wrapped-stream": wrapped_view("stream_one"),
    "late-blueprint": Case(late_blueprint, late=False),
    "route": route("/events/orders"),
    "route-that-matches-later": route("/events/<later:x>"),
    "method-of-the-app": patched(None, "full_dispatch_request"),
    "call-of-the-class": patched(Flask, "__call__"),
    "wsgi-app-of-the-class": patched(Flask, "wsgi_app"),
    "dispatch-of-the-class": patched(Flask, "dispatch_request"),
    "ensure-sync-of-the-class": patched(Flask, "ensure_sync"),
    "ensure-sync-of-the-app": patched(None, "ensure_sync"),
    "routing-of-the-app": patched(None, "create_url_adapter"),
    "method-by-descriptor": Case(descriptor),
    "subclass": Case(subclass),
    "response-class": attribute("response_class", Shouting),
    "response-class-of-the-class": class_attribute("response_class", Shouting),
    "request-class": attribute("request_class", Small),
    "request-class-of-the-class": class_attribute("request_class", Small),
    "sessions": attribute("session_interface", Sessions()),
    "sessions-of-the-class": class_attribute("session_interface", Sessions()),
    "permanent-session": attribute("secret_key", "a secret"),
    "max-content-length": setting(MAX_CONTENT_LENGTH=3),
    "no-content-allowed": setting(MAX_CONTENT_LENGTH=0),
    "trusted-hosts": setting(TRUSTED_HOSTS=["other.example"]),
    "no-trusted-hosts": setting(TRUSTED_HOSTS=[]),
    "testing": setting(TESTING=True),
    "host-matching": Case(lambda app, log, patch: setattr(app.url_map, "host_matching", True)),
    "default-subdomain": Case(lambda app, log, patch: setattr(app.url_map, "default_subdomain", "www")),
    "error-handler-404": handler(404),
    "error-handler-403": handler(403),
    "error-handler-500": handler(500),
    "error-handler-exception": handler(Exception),
    "error-handler-of-a-bug": handler(ZeroDivisionError),
    **{f"signal-{name}": signal(name) for name in SIGNALS},
}

HARMLESS: dict[str, Callable[[flask.Flask], Any]] = {
    "an attribute of the app's own": lambda app: setattr(app, "database", object()),
    "a setting of another extension": lambda app: app.config.update(REDIS_URL="redis://localhost"),
    "a template filter": lambda app: app.jinja_env.filters.update(up=str.upper),
    "a logger": lambda app: app.logger,
    "an extension": lambda app: app.extensions.update(other=object()),
    "a less specific route": lambda app: app.url_map.add(
        werkzeug.routing.Rule("/<path:rest>", endpoint="rest", methods=["POST", "GET"])
    ),
}
