"""The app of tests/live/test_runs*.py with the console."""

from sse.web import pages
from tests.live.runs_app import app

__all__ = ["app"]

app.register_blueprint(pages.blueprint)
