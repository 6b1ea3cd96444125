"""The service's Flask app: streams, publishing, the console; and the probes of whoever offers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from flask import Flask
from werkzeug.exceptions import HTTPException

from ..apps import SSE
from ..observe import logging as logs
from ..settings import Settings
from ..web import pages
from ..web.problems import problem_of


class Probes(Protocol):
    """What ``health.Health(app, settings)`` returns, as far as it is needed here: ``sse`` does not know health."""

    def report(self) -> dict[str, Any]: ...


def make_app(settings: Settings, probes: Callable[[Flask, Settings], Probes]) -> Flask:
    """Create the app. Opens no log and starts no thread: the worker does both, after the fork.

    probes: adds the probes' routes to the app; ``health.Health``.
    """
    app = Flask("headwater", static_folder=None)
    # `//` is not `/`: answer 404 to a path that merely looks like a route, without a redirect to the real one.
    app.url_map.merge_slashes = False
    app.register_error_handler(HTTPException, problem_of)
    sse = SSE(app, settings).current
    logs.follow(settings)
    app.register_blueprint(pages.blueprint)
    sse.report_more(probes(app, settings).report)
    return app
