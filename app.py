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
    """Create the app. Opens no log and starts no thread: the worker does both, after the fork."""
    app = Flask(__name__, static_folder=None)
    # `//` is not `/`: answer 404 to a path that merely looks like a route, without a redirect to the real one.
    app.url_map.merge_slashes = False
    app.register_error_handler(HTTPException, problem_of)
    sse = SSE(app, settings)
    logs.follow(settings)
    app.register_blueprint(pages.blueprint)
    sse.report_more(Health(app, settings).report)
    return app
