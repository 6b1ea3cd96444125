"""Flask-SSE's quickstart, with a route that publishes."""

from __future__ import annotations

import os

from flask import Flask, request
from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/stream")


@app.get("/healthz")
def healthz() -> str:
    return "ok\n"


@app.post("/publish/<channel>")
def publish(channel: str) -> tuple[str, int]:
    sse.publish(request.get_data(as_text=True), channel=channel)
    return "ok\n", 201
