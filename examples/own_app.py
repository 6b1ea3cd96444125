"""A Flask app with live updates: the streams, and a view that publishes.

    headwater serve --app examples.own_app        (or: flask --app examples.own_app run -p 8080)
    curl -N localhost:8080/events/orders
    curl -X POST localhost:8080/orders -H 'Content-Type: application/json' -d '{"item": "tea"}'
"""

import itertools
from typing import Any

from flask import Flask, request

from headwater import SSE, Health

app = Flask(__name__)
app.config.from_prefixed_env()      # FLASK_SSE_HEARTBEAT=5 becomes SSE_HEARTBEAT; see docs/settings.md
sse = SSE(app)                      # adds /events/<channel>
health = Health(app)                # adds /healthz, /readyz and /startupz
numbers = itertools.count(1)


@app.post("/orders")
def create_order() -> tuple[dict[str, Any], int]:
    """Take an order, and publish it to the channel ``orders``."""
    order = {"number": next(numbers), "item": request.get_json()["item"]}
    event_id = sse.publish("orders", order, event="created")
    return {**order, "event": event_id}, 201
