"""An app that decides by its own session who may do what, for tests/live/test_authorize.py."""

from __future__ import annotations

import os

import flask

from health import Health
from settings import load
from sse import SSE, Grant

app = flask.Flask(__name__)
app.secret_key = "the app's own secret"
sse = SSE(app, load())
Health(app)


@app.get("/login/<name>")
def login(name: str) -> str:
    flask.session["user"] = name
    return f"hello {name}\n"


@sse.authorize
def may(request: flask.Request, action: str, channels: tuple[str, ...]) -> bool | Grant | None:
    """Readers are signed in and read what is theirs; publishers have the key."""
    if action != "subscribe" or "_stats" in channels:
        return None
    user = flask.session.get("user")
    if user == "trouble":
        raise RuntimeError("the database is away")
    if user is None or any(channel != f"user:{user}" for channel in channels):
        return False
    return Grant(user, expires_in=float(os.environ["APP_EXPIRES_IN"]))
