"""The service's Flask app: streams and publishing from :mod:`sse`, probes from :mod:`health`."""

from __future__ import annotations

from flask import Flask
from werkzeug.exceptions import HTTPException

from health import Health
from sse import SSE
from sse.observe import logging as logs
from sse.settings import Settings
from sse.web import pages
from sse.web.problems import problem_of


def create_app(settings: Settings) -> Flask:
    """The app with these settings. Opens no log and starts no thread: the worker does, after the fork."""
    app = Flask(__name__, static_folder=None)
    # `//` is not `/`: a path that only looks like a route is no route, and no redirect shows where it would go.
    app.url_map.merge_slashes = False
    app.register_error_handler(HTTPException, problem_of)
    SSE(app, settings)
    logs.follow(settings)
    app.register_blueprint(pages.blueprint)
    app.extensions["sse"].report_more = Health(app, settings).report
    return app
