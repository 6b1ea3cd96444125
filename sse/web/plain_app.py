"""Decide whether an app is plain: only our own views take part in its publishes and streams.

The fast path (:mod:`sse.web.fast_path`) skips Flask's dispatch. That changes nothing for an app without hooks, signal
receivers, patched methods, classes of its own, or settings that Flask reads for these requests. The checks are
allow-lists: anything unknown makes an app *not* plain, and Flask serves it.

:func:`is_plain` is thorough. A :class:`Snapshot` tells in about 3 µs whether the app still looks as it did then. It
misses some patches of classes; the next thorough examination finds them.
"""

from __future__ import annotations

from datetime import timedelta
from operator import attrgetter, itemgetter
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Final

import blinker
from flask import ctx, sessions, signals
from flask.app import Flask
from flask.wrappers import Request, Response
from werkzeug.routing import Map

from . import routes as views

# The methods that Flask calls for a request. Monitoring agents patch them, so each request checks them.
_METHODS: Final = (
    "wsgi_app",
    "request_context",
    "app_context",
    "create_url_adapter",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "ensure_sync",
    "make_response",
    "finalize_request",
    "process_response",
    "do_teardown_request",
    "do_teardown_appcontext",
)
_methods_and_classes: Final = attrgetter(
    *_METHODS, "request_class", "response_class", "session_interface", "app_ctx_globals_class"
)

# The hooks that Flask calls for a request. Each is a dict by scope (None for the whole app, or a blueprint's name);
# the last is a list.
_hooks: Final = attrgetter(
    "before_request_funcs",
    "after_request_funcs",
    "teardown_request_funcs",
    "url_value_preprocessors",
    "teardown_appcontext_funcs",
)

# Flask's settings that only matter to errors, sessions, cookies and templates. All others must have Flask's defaults.
_IRRELEVANT: Final = frozenset(
    {
        "APPLICATION_ROOT",
        "EXPLAIN_TEMPLATE_LOADING",
        "MAX_COOKIE_SIZE",
        "MAX_FORM_MEMORY_SIZE",
        "MAX_FORM_PARTS",
        "PERMANENT_SESSION_LIFETIME",
        "PREFERRED_URL_SCHEME",
        "PROVIDE_AUTOMATIC_OPTIONS",
        "SECRET_KEY_FALLBACKS",
        "SEND_FILE_MAX_AGE_DEFAULT",
        "SESSION_COOKIE_DOMAIN",
        "SESSION_COOKIE_HTTPONLY",
        "SESSION_COOKIE_PARTITIONED",
        "SESSION_COOKIE_PATH",
        "SESSION_COOKIE_SAMESITE",
        "SESSION_COOKIE_SECURE",
        "SESSION_REFRESH_EACH_REQUEST",
        "TEMPLATES_AUTO_RELOAD",
        "USE_X_SENDFILE",
    }
)
# Any value is allowed, because Flask serves the requests that have a session's cookie.
_OF_SESSIONS: Final = frozenset({"SECRET_KEY", "SESSION_COOKIE_NAME"})
_DEFAULTS: Final = {key: value for key, value in Flask.default_config.items() if key not in _IRRELEVANT}
_settings: Final = itemgetter(*_DEFAULTS)

# A new app's own attributes, and those that Flask computes once. Any other of Flask's names is an override.
_OWN_ATTRIBUTES: Final = frozenset(vars(Flask(__name__, static_folder=None))) | {
    "_got_first_request",
    "jinja_env",
    "logger",
    "name",
    "wsgi_app",  # middleware around the fast path runs before it
}

_RECEIVERS: Final = tuple(signal.receivers for signal in vars(signals).values() if isinstance(signal, blinker.Signal))

_CLASSES: Final = (
    Flask,
    Request,
    Response,
    sessions.SecureCookieSessionInterface,
    *(vars(ctx)[name] for name in ("AppContext", "RequestContext") if name in vars(ctx)),  # one of them, some day
)
_PACKAGES: Final = frozenset({"flask", "werkzeug"})
_DATA: Final = (str, int, bool, type(None), dict, list, tuple, set, frozenset, timedelta, ModuleType)
_DESCRIPTORS: Final = (GetSetDescriptorType, MemberDescriptorType)


def is_plain(app: Flask) -> bool:
    """Tell whether only our own views take part in this app's publishes and streams."""
    own = views.blueprint.name
    before, after, teardown, values, appcontext = _hooks(app)
    return (
        type(app) is Flask
        and all(name in _OWN_ATTRIBUTES or not hasattr(Flask, name) for name in vars(app))
        and all(_is_original(cls) for cls in _CLASSES)
        and all(isinstance(getattr(Flask, name), FunctionType) for name in _METHODS)
        and Flask.request_class is Request
        and isinstance(vars(Request).get("max_content_length"), property)
        and getattr(Request, "_max_content_length", None) is None
        and Flask.response_class is Response
        and Flask.app_ctx_globals_class is ctx._AppCtxGlobals
        and type(Flask.session_interface) is sessions.SecureCookieSessionInterface
        and not vars(Flask.session_interface)
        and all(_is_default(app, key) for key in _DEFAULTS if key not in _OF_SESSIONS)
        and not before.get(own)
        and all(lets_pass_of(hook) is not None for hook in before.get(None, ()))
        and not after.get(None)
        and after.get(own) == [views.add_common_headers]
        and not any(hooks.get(scope) for hooks in (teardown, values) for scope in (None, own))
        and not appcontext
        and not any(_RECEIVERS)
        and app.view_functions.get(f"{own}.publish_one") is views.publish_one
        and app.view_functions.get(f"{own}.stream_one") is views.stream_one
        and type(app.url_map) is Map
        and all(_is_stable(rule) for rule in app.url_map.iter_rules())
    )


def lets_pass_of(hook: Any) -> Any:
    """Return a ``before_request`` hook's function ``lets_pass``, or None.

    The function's own attribute ``hook`` must be the hook: a wrapper made with ``functools.wraps`` copies attributes.
    """
    lets_pass = getattr(hook, "lets_pass", None)
    return lets_pass if getattr(lets_pass, "hook", None) is hook else None


def _is_default(app: Flask, key: str) -> bool:
    value, default = app.config.get(key, app), _DEFAULTS[key]
    # Flask sets an app's DEBUG to False though the default is None. Elsewhere False and None differ.
    return value is default or (key == "DEBUG" and value is False)


def _is_original(cls: type) -> bool:
    """Tell whether all members of this class and its bases are Flask's or Werkzeug's own."""
    return all(_is_flasks(value) for base in cls.__mro__[:-1] for value in vars(base).values())


def _is_flasks(value: Any) -> bool:
    if isinstance(value, staticmethod | classmethod):
        return _is_flasks(value.__func__)
    if isinstance(value, type):
        return True  # an attribute that names a class
    if isinstance(value, BuiltinFunctionType):
        return value.__module__ == "_hashlib"  # Flask 3.0 signs sessions with it
    if isinstance(value, FunctionType):
        return _package(value.__globals__.get("__name__")) in _PACKAGES
    if isinstance(value, property) and not all(
        part is None or _is_flasks(part) for part in (value.fget, value.fset, value.fdel)
    ):
        return False
    return type(value) in (*_DATA, *_DESCRIPTORS, property) or _package(type(value).__module__) in _PACKAGES


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def _is_stable(rule: Any) -> bool:
    """Tell whether a rule and its converters are Werkzeug's. Others may match a path today that they did not before."""
    converters = getattr(rule, "_converters", None)
    return (
        converters is not None
        and _package(type(rule).__module__) == "werkzeug"
        and all(_package(type(converter).__module__) == "werkzeug" for converter in converters.values())
    )


class Snapshot:
    """What a plain app looked like when it was examined."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._attributes = dict(vars(app))
        self._hooks = tuple(_copy(hooks) for hooks in _hooks(app))
        self._methods_and_classes = _methods_and_classes(Flask)
        self._settings = _settings(app.config)
        app.url_map.update()
        self._map = dict(vars(app.url_map))
        self._publish = f"{views.blueprint.name}.{views.publish_one.__name__}"
        self._stream = f"{views.blueprint.name}.{views.stream_one.__name__}"
        # None if the app has no sessions. Flask serves requests that have this cookie.
        self.session_cookie: str | None = app.config["SESSION_COOKIE_NAME"] if app.config["SECRET_KEY"] else None
        self.lets_pass = [lets_pass_of(hook) for hook in app.before_request_funcs.get(None, ())]

    def matches(self) -> bool:
        """Tell whether the app still looks the same."""
        app = self._app
        try:
            functions = app.view_functions
            return (
                type(app) is Flask
                and vars(app) == self._attributes
                and _hooks(app) == self._hooks
                and _methods_and_classes(Flask) == self._methods_and_classes
                and _settings(app.config) == self._settings
                and not any(_RECEIVERS)
                and functions[self._publish] is views.publish_one
                and functions[self._stream] is views.stream_one
                and vars(app.url_map) == self._map
            )
        except Exception:  # a setting was removed, or an attribute cannot be compared
            return False


def _copy(hooks: Any) -> Any:
    return list(hooks) if isinstance(hooks, list) else {scope: list(functions) for scope, functions in hooks.items()}
