"""The routes: ``/healthz`` (alias ``/livez``), ``/readyz``, ``/startupz`` and ``/metrics``.

The last is no route of Flask's, because an app may have one of the same name (prometheus_flask_exporter's): on health's
listener ours answers, on the main one the app's does.

Every answer ends its connection. The kubelet opens one for every probe, and an answer on a kept-alive
connection is what once restarted pods (kubernetes#15643).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flask

from .checks.table import Question

if TYPE_CHECKING:
    from .extension import Health

PATHS: dict[str, Question] = {
    "/healthz": "live",
    "/livez": "live",
    "/readyz": "ready",
    "/startupz": "started",
}
TEXT = "text/plain; charset=utf-8"


def answer(body: str | bytes, status: int, content_type: str = TEXT) -> flask.Response:
    """A complete answer, on a connection that ends with it."""
    response = flask.Response(body, status, content_type=content_type)
    response.headers["Connection"] = "close"
    response.headers["Cache-Control"] = "no-store"
    return response


def make_blueprint(health: Health) -> flask.Blueprint:
    """The routes of one app. HEAD is answered as GET; other methods get 405."""
    blueprint = flask.Blueprint("health", __name__)

    def probe(question: Question) -> flask.Response:
        report = health.ask(question)
        text = report.text(verbose="verbose" in flask.request.args)
        return answer(text, 200 if report.ok else 503)

    for path, question in PATHS.items():
        blueprint.add_url_rule(path, path[1:], probe, defaults={"question": question}, provide_automatic_options=False)

    @blueprint.before_app_request
    def gate() -> flask.Response | None:
        """Streams and publishing must not be reachable through the port whose connections are the probes'."""
        health.start()  # where no hook of the server did
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

    def passes(environ: Mapping[str, Any]) -> bool:
        """Would the gate let this publish through? sse's lane asks, which spares Flask where nobody else takes part."""
        health.start()
        return not health.on_health_port(environ)

    gate.passes = passes  # type: ignore[attr-defined]
    passes.hook = gate  # type: ignore[attr-defined] # whose it is: a function that wraps the gate copies its attributes
    return blueprint


def not_found() -> flask.Response:
    return answer("not found\n", 404)
