"""The Flask extension, ``sse = SSE(app)``, or ``sse = SSE()`` and ``sse.init_app(app)`` for any number of apps."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import flask

from .auth.hook import Grant, May
from .extension import AppSSE
from .runs.states import RunActive, RunError, RunsFull
from .settings import Settings, unknown_names

logger = logging.getLogger("headwater")

# Names in ``app.config`` that begin like ours: Flask-SSE's, and health's own.
NOT_OURS: Final = frozenset({"SSE_REDIS_URL", "HEALTH_METRICS_PATH"})

P = ParamSpec("P")
T = TypeVar("T")


def _of_the_app(method: Callable[Concatenate[AppSSE, P], T]) -> Callable[Concatenate[SSE, P], T]:
    """Make a method of :class:`SSE` that calls the current app's method of the same name."""

    @wraps(method)
    def call(self: SSE, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self.current, *args, **kwargs)

    return call


# Lines about app.config that this process has logged: a test suite makes its app again and again.
_warned: Final[set[str]] = set()


def _point_out_typos(config: Mapping[str, Any]) -> None:
    """Warn of names in ``app.config`` that look like ours but are none, as of those in the environment."""
    named = {name: value for name, value in config.items() if isinstance(name, str) and name not in NOT_OURS}
    for line in unknown_names(named, Settings.names()):
        if line not in _warned:
            _warned.add(line)
            logger.warning("app.config: %s", line)


class SSE:
    """Server-Sent Events for Flask apps: the routes under SSE_URL_PREFIX, and methods for the apps' own views.

    One object may serve several apps, such as those that a factory makes. Each has its own settings, log and hub, and a
    method acts for the current app. While there is only one app, methods need no application context.

    settings: read from ``app.config`` by default (docs/settings.md has the names).
    Raises SettingsError for an invalid setting.
    """

    def __init__(self, app: flask.Flask | None = None, settings: Settings | None = None) -> None:
        # Weak references, so that a factory's apps can be collected.
        self._known: list[weakref.ref[AppSSE]] = []
        self._app = app  # a script may keep only the extension
        self._may: May | None = None
        if app is not None:
            self.init_app(app, settings)

    def init_app(self, app: flask.Flask, settings: Settings | None = None) -> None:
        """Add the routes to ``app``, and the app's own part of this extension as ``app.extensions["sse"]``.

        Raises SettingsError, and RuntimeError if the app has an SSE extension already.
        """
        if "sse" in app.extensions:
            raise RuntimeError("this app has an SSE extension already")
        if settings is None:
            settings = Settings.from_mapping(app.config)
            _point_out_typos(app.config)
        part = AppSSE(app, settings)
        part.may = self._may
        self._known = [known for known in self._known if known() is not None] + [weakref.ref(part)]

    @property
    def current(self) -> AppSSE:
        """The current app's part, ``app.extensions["sse"]``. Without an application context: the only app's.

        Raises RuntimeError if there is no app, or if it is not clear which one is meant.
        """
        if flask.has_app_context():
            part = flask.current_app.extensions.get("sse")
            if part in self._parts():
                assert isinstance(part, AppSSE)
                return part
        if len(self._in_use()) > 1:
            gc.collect()  # apps of earlier tests that nobody stopped
        parts = self._in_use() or self._parts()
        if len(parts) == 1:
            return parts[0]
        if not parts:
            raise RuntimeError("this SSE has no app: call init_app(app) first")
        names = ", ".join(sorted(part.app.name for part in parts))
        raise RuntimeError(
            f"this SSE serves several apps ({names}): use it in the context of one of them"
            " (with app.app_context(): …), or use app.extensions['sse']"
        )

    def _in_use(self) -> list[AppSSE]:
        return [part for part in self._parts() if not part.stopped]

    def _parts(self) -> list[AppSSE]:
        return [part for known in self._known if (part := known()) is not None]

    @property
    def settings(self) -> Settings:
        """The current app's settings."""
        return self.current.settings

    # ── who may do what ─────────────────────────────────────────────────────────────────────────────────────

    #: What a function for :meth:`authorize` may return: ``return sse.Grant("alice", expires_in=600)``.
    Grant = Grant

    #: What :meth:`run` may raise, and what its iterable may: ``raise sse.RunError("for the client")``.
    RunActive, RunError, RunsFull = RunActive, RunError, RunsFull

    def authorize(self, may: May) -> May:
        """Register the apps' own decision about who may do what, as a decorator.

            @sse.authorize
            def may(request, action, channels):
                return current_user.is_authenticated and all(c == f"user:{current_user.id}" for c in channels)

        It is called in the request's Flask context, once for each request: action is "publish", "subscribe" or
        "manage", and channels has all names and patterns of the request. It returns True or a :class:`Grant` to allow
        it, False to refuse it (403), and None to let keys and tokens decide. If it raises, the request is refused
        (500). It counts for all apps of this extension. Raises RuntimeError if there is one already.
        """
        if self._may is not None:
            raise RuntimeError("this extension has a function for authorize already")
        self._may = may
        for part in self._parts():
            part.may = may
        return may

    # ── for the apps' own views ─────────────────────────────────────────────────────────────────────────────

    publish = _of_the_app(AppSSE.publish)
    publish_batch = _of_the_app(AppSSE.publish_batch)
    close = _of_the_app(AppSSE.close)
    response = _of_the_app(AppSSE.response)
    run = _of_the_app(AppSSE.run)
    find_run = _of_the_app(AppSSE.find_run)
    stop_run = _of_the_app(AppSSE.stop_run)

    # ── what there is ───────────────────────────────────────────────────────────────────────────────────────

    channels = _of_the_app(AppSSE.channels)
    listeners = _of_the_app(AppSSE.listeners)
    erase = _of_the_app(AppSSE.erase)
    disconnect = _of_the_app(AppSSE.disconnect)

    if not TYPE_CHECKING:  # which is to know only what is meant for apps

        def __getattr__(self, name: str) -> object:
            """Return an attribute of the current app's part."""
            if name.startswith("_"):
                raise AttributeError(name)
            try:
                part = self.current
            except RuntimeError as error:
                raise AttributeError(f"{name}: {error}") from None
            return getattr(part, name)

    def stop(self) -> None:
        """End the streams and threads of all apps of this extension, and close their logs.

        Call it at the end of a test or a script; a server's worker does this itself. An app that publishes or streams
        afterwards begins again.
        """
        for part in self._parts():
            part.stop()
