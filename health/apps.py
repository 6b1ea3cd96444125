"""The Flask extension, ``health = Health(app)``, or ``health = Health()`` and ``health.init_app(app)`` for any number
of apps."""

from __future__ import annotations

import weakref

import flask

from .checks.user import CheckFunction, UserChecks
from .config import Config, Settings
from .extension import AppHealth


class Health:
    """Health routes for Flask apps: ``/healthz``, ``/livez``, ``/readyz``, ``/startupz``, ``/metrics``.

    One object may serve several apps, such as those that a factory makes.

    settings: the service's settings; None: read ``app.config`` (see ``health.config.Config``).
    """

    def __init__(self, app: flask.Flask | None = None, settings: Settings | None = None) -> None:
        # Weak references, so that a factory's apps can be collected.
        self._known: list[weakref.ref[AppHealth]] = []
        self._app = app  # a script may keep only the extension
        self._checks: list[tuple[str, CheckFunction, bool, bool, float, float]] = []
        self._names = UserChecks()
        if app is not None:
            self.init_app(app, settings)

    def init_app(self, app: flask.Flask, settings: Settings | None = None) -> None:
        """Add the routes to ``app``, and the app's own part of this extension as ``app.extensions["health"]``.

        Raises ValueError for an invalid setting in ``app.config``, RuntimeError if the app has the extension already.
        """
        if "health" in app.extensions:
            raise RuntimeError("this app has a Health extension already")
        part = AppHealth(app, Config.from_mapping(app.config) if settings is None else Config.from_settings(settings))
        for check in self._checks:
            part.add_check(*check)
        self._known = [known for known in self._known if known() is not None] + [weakref.ref(part)]

    @property
    def current(self) -> AppHealth:
        """The current app's part, ``app.extensions["health"]``. Without an application context: the only app's.

        Raises RuntimeError if there is no app, or if it is not clear which one is meant.
        """
        parts = self._parts()
        if flask.has_app_context():
            part = flask.current_app.extensions.get("health")
            if part in parts:
                assert isinstance(part, AppHealth)
                return part
        if len(parts) != 1:
            raise RuntimeError("this Health has no app" if not parts else "this Health serves several apps")
        return parts[0]

    def _parts(self) -> list[AppHealth]:
        return [part for known in self._known if (part := known()) is not None]

    def add_check(
        self,
        name: str,
        function: CheckFunction,
        live: bool = False,
        ready: bool = True,
        interval: float = 10.0,
        timeout: float = 2.0,
    ) -> None:
        """Add a check, such as whether the database answers, to all apps of this extension, also to later ones.

        It runs in the background in a real thread, one run at a time. Probes only read its last outcome.

        name: as ``?verbose`` shows it: printable ASCII without spaces.
        function: passes by returning None or True; fails by returning False or a reason, which the probe's answer
            shows, or by raising, when the answer shows the exception's type and the log the rest.
        live: count it for ``/healthz``, where a failure restarts the container. Never for a dependency.
        ready: count it for ``/readyz``. The pod is not ready before the first run has ended.
        interval: seconds between the starts of two runs, at least 0.5.
        timeout: seconds after which a run counts as failed, until it returns.

        Raises ValueError for a name that is taken or an invalid value.
        """
        self._names.add(name, function, live=live, ready=ready, interval=interval, timeout=timeout)
        check = (name, function, live, ready, interval, timeout)
        self._checks.append(check)
        for part in self._parts():
            part.add_check(*check)

    def report(self) -> dict[str, object]:
        """Return the current app's figures, as the console shows them."""
        return self.current.report()

    def stop(self) -> None:
        """Stop the background work of all apps of this extension, at the end of a test or a script."""
        for part in self._parts():
            part.stop()
