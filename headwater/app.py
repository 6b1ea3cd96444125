"""The service's Flask app, as app.py makes it in a checkout."""

from __future__ import annotations

from flask import Flask

from .health import Health
from .sse.serve.app import make_app
from .sse.settings import Settings


def create_app(settings: Settings) -> Flask:
    """Create the app with these settings, for a server to run."""
    return make_app(settings, Health)
