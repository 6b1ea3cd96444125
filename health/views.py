"""The routes: ``/healthz`` (alias ``/livez``), ``/readyz``, ``/startupz`` and ``/metrics``.

``/metrics`` is not a Flask route, because an app may have its own (prometheus_flask_exporter adds one). Ours answers on
the health listener, the app's on the main one.

Every answer closes its connection. The kubelet opens one for every probe anyway, and probe connections that were kept
alive have caused restarts (kubernetes#15643).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import flask

from .checks.table import Question, Report

PATHS: dict[str, Question] = {
    "/healthz": "live",
    "/livez": "live",
    "/readyz": "ready",
    "/startupz": "started",
}
TEXT = "text/plain; charset=utf-8"


class Health(Protocol):
    """What the routes need from the extension."""

    rival: str

    @property
    def metrics_path(self) -> str: ...
    def start(self) -> object: ...
    def ask(self, question: Question) -> Report: ...
    def metrics(self) -> tuple[str, bytes]: ...
    def on_health_port(self, environ: Mapping[str, Any]) -> bool | None: ...


# Servers that let an app close the connection ("": a test client, and uWSGI). PEP 3333 forbids it, and waitress and
# wsgiref fail the request; they have no kept-alive probes to fear, as they are not for Kubernetes.
_MAY_CLOSE: Final = ("gunicorn", "Werkzeug", "")


def answer(body: str | bytes, status: int, content_type: str = TEXT) -> flask.Response:
    """Return a complete answer that closes its connection, where the server allows that."""
    response = flask.Response(body, status, content_type=content_type)
    if flask.request.environ.get("SERVER_SOFTWARE", "").partition("/")[0] in _MAY_CLOSE:
        response.headers["Connection"] = "close"
    response.headers["Cache-Control"] = "no-store"
    return response


def make_blueprint(health: Health) -> flask.Blueprint:
    """Make the routes for one app. They answer GET and HEAD, and 405 to other methods."""
    blueprint = flask.Blueprint("health", __name__)

    def probe(question: Question) -> flask.Response:
        report = health.ask(question)
        text = report.text(verbose="verbose" in flask.request.args)
        return answer(text, 200 if report.ok else 503)

    for path, question in PATHS.items():
        blueprint.add_url_rule(path, path[1:], probe, defaults={"question": question}, provide_automatic_options=False)

    @blueprint.before_app_request
    def gate() -> flask.Response | None:
        """Serve the metrics, and refuse everything but health on the health listener."""
        health.start()  # does nothing if a hook of the server has called it
        path = flask.request.path
        ours = health.on_health_port(flask.request.environ)
        metrics = path == health.metrics_path and (ours or not health.rival)
        if path in PATHS or metrics:
            if flask.request.method not in ("GET", "HEAD"):
                refusal = answer("method not allowed\n", 405)
                refusal.headers["Allow"] = "GET, HEAD"
                return refusal
            if not metrics:
                return None
            if ours is False:
                return not_found()
            content_type, body = health.metrics()
            return answer(body, 200, content_type)
        return not_found() if ours else None

    def lets_pass(environ: Mapping[str, Any]) -> bool:
        """Tell, without Flask, whether the gate would do nothing. A fast path around Flask's dispatch asks this."""
        health.start()
        return not health.on_health_port(environ)

    gate.lets_pass = lets_pass  # type: ignore[attr-defined]
    # Names the owner, because a wrapper of the gate copies the gate's attributes.
    lets_pass.hook = gate  # type: ignore[attr-defined]
    return blueprint


def not_found() -> flask.Response:
    return answer("not found\n", 404)
