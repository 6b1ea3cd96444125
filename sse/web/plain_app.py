"""Whether anything of an app's takes part in a publish or a stream, beside our own views.

The fast path (:mod:`sse.web.fast_path`) answers without Flask's dispatch, so it may only be taken where the dispatch
could not have made a difference: no hook, no receiver of a signal, no patched method, no class of the app's own,
no setting that Flask reads on the way. Decided by allow-lists: what is not known here makes an app *not* plain, and
Flask serves.

:func:`is_plain` is thorough. :class:`Seen` remembers what an app looked like then, and tells in about 3 µs whether it
still does. What it cannot notice so quickly (a patch of a class, other than of the methods on a request's way), the
next thorough look does.
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

# The methods and classes that a request meets in Flask, looked at for each request: agents patch them.
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
_way: Final = attrgetter(*_METHODS, "request_class", "response_class", "session_interface", "app_ctx_globals_class")

# What Flask calls on the way: by scope (None: the whole app; a blueprint's name), but for the last.
_hooks: Final = attrgetter(
    "before_request_funcs",
    "after_request_funcs",
    "teardown_request_funcs",
    "url_value_preprocessors",
    "teardown_appcontext_funcs",
)

# Flask's settings that play no part in a request which succeeds, except for sessions, cookies and templates. All others
# must be as Flask has them.
_OFF_THE_WAY: Final = frozenset(
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
# Looked at, but any value will do: a request with a session's cookie is Flask's.
_OF_SESSIONS: Final = frozenset({"SECRET_KEY", "SESSION_COOKIE_NAME"})
_DEFAULTS: Final = {key: value for key, value in Flask.default_config.items() if key not in _OFF_THE_WAY}
_settings: Final = itemgetter(*_DEFAULTS)

# What a fresh app has of its own, and what Flask computes once. Any other attribute that Flask knows is an override.
_OWN_ATTRIBUTES: Final = frozenset(vars(Flask(__name__, static_folder=None))) | {
    "_got_first_request",
    "jinja_env",
    "logger",
    "name",
    "wsgi_app",  # what wraps the fast path runs before it
}

# Flask's own, and those of the libraries that it is made of.
_RECEIVERS: Final = tuple(
    signal.receivers for signal in vars(signals).values() if isinstance(signal, blinker.Signal)
)

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
    """Do publishing and streaming go through this app with nobody else taking part?"""
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
        and all(passes_of(hook) is not None for hook in before.get(None, ()))
        and not after.get(None)
        and after.get(own) == [views.add_common_headers]
        and not any(hooks.get(scope) for hooks in (teardown, values) for scope in (None, own))
        and not appcontext
        and not any(_RECEIVERS)
        and app.view_functions.get(f"{own}.publish_one") is views.publish_one
        and app.view_functions.get(f"{own}.stream_one") is views.stream_one
        and type(app.url_map) is Map
        and all(_decides_by_itself(rule) for rule in app.url_map.iter_rules())
    )


def passes_of(hook: Any) -> Any:
    """The function by which a ``before_request`` hook says of an environ that it would do nothing; None if it has none.
    (Its attribute ``hook`` says whose it is: a wrapper made with ``functools.wraps`` has the other's attributes.)"""
    passes = getattr(hook, "passes", None)
    return passes if getattr(passes, "hook", None) is hook else None


def _is_default(app: Flask, key: str) -> bool:
    value, default = app.config.get(key, app), _DEFAULTS[key]
    # An app's DEBUG is False where the default says None. (Elsewhere they differ: no bytes allowed, and no limit.)
    return value is default or (key == "DEBUG" and value is False)


def _is_original(cls: type) -> bool:
    """Is every function of this class, and of its bases, one of Flask's or Werkzeug's own?"""
    return all(_is_their_own(value) for base in cls.__mro__[:-1] for value in vars(base).values())


def _is_their_own(value: Any) -> bool:
    if isinstance(value, staticmethod | classmethod):
        return _is_their_own(value.__func__)
    if isinstance(value, type):
        return True  # a class that is named, not a method
    if isinstance(value, BuiltinFunctionType):
        return value.__module__ == "_hashlib"  # Flask 3.0's digest of sessions
    if isinstance(value, FunctionType):
        return _package(value.__globals__.get("__name__")) in _PACKAGES
    if isinstance(value, property) and not all(
        part is None or _is_their_own(part) for part in (value.fget, value.fset, value.fdel)
    ):
        return False
    return type(value) in (*_DATA, *_DESCRIPTORS, property) or _package(type(value).__module__) in _PACKAGES


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def _decides_by_itself(rule: Any) -> bool:
    """Is this rule Werkzeug's, with converters that are? Others may match what they did not match before."""
    converters = getattr(rule, "_converters", None)
    return (
        converters is not None
        and _package(type(rule).__module__) == "werkzeug"
        and all(_package(type(converter).__module__) == "werkzeug" for converter in converters.values())
    )


class Seen:
    """What a plain app looked like."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._attributes = dict(vars(app))
        self._hooks = tuple(_copy(hooks) for hooks in _hooks(app))
        self._way = _way(Flask)
        self._settings = _settings(app.config)
        app.url_map.update()
        self._map = dict(vars(app.url_map))
        self._publish = f"{views.blueprint.name}.{views.publish_one.__name__}"
        self._stream = f"{views.blueprint.name}.{views.stream_one.__name__}"
        # The cookie that makes a session, where there are sessions: requests that have it are Flask's.
        self.session_cookie: str | None = app.config["SESSION_COOKIE_NAME"] if app.config["SECRET_KEY"] else None
        self.passes = [passes_of(hook) for hook in app.before_request_funcs.get(None, ())]

    def holds(self) -> bool:
        """Does it still?"""
        app = self._app
        try:
            functions = app.view_functions
            return (
                type(app) is Flask
                and vars(app) == self._attributes
                and _hooks(app) == self._hooks
                and _way(Flask) == self._way
                and _settings(app.config) == self._settings
                and not any(_RECEIVERS)
                and functions[self._publish] is views.publish_one
                and functions[self._stream] is views.stream_one
                and vars(app.url_map) == self._map
            )
        except Exception:  # a setting was taken away; an attribute of the app's that cannot be compared
            return False


def _copy(hooks: Any) -> Any:
    return list(hooks) if isinstance(hooks, list) else {scope: list(functions) for scope, functions in hooks.items()}
